import math

import pytest

from lightlm.budget.candidate import TextFacts
from lightlm.budget.memory import plan_memory_bytes
from lightlm.budget.planner import plan
from lightlm.budget.probe import Probe, measure_machine
from lightlm.budget.ranking import FLOOR_SECONDS, TimeLeft
from lightlm.budget.reserve import Closing
from lightlm.budget.timings import probe_shapes
from lightlm.errors import ParameterError
from lightlm.model.accounting import count_parameters
from lightlm.params import load_params
from lightlm.system import Device, check_system
from lightlm.training.supervisor import Worker

LITTLE_TEXT = TextFacts(300, 100_000, 300_000, 5_000, 15_000)


def test_the_same_figures_give_the_same_plan(make_plan):
    assert make_plan() == make_plan()


def test_the_plan_measured_by_the_worker_is_made_again_from_its_saved_figures(tmp_path):
    params = load_params(
        hours=0.005, overrides={"training.num_threads": 1, "training.dtype": "float32"}
    )

    with Worker(tmp_path) as worker:
        devices = [
            Device.model_validate(one) for one in worker.call("describe_devices")["devices"][:1]
        ]
        machine = measure_machine(params.training, check_system(params, tmp_path, devices), worker)
        left = TimeLeft(15.0, Closing(4.0))
        probe = probe_shapes(params, machine, LITTLE_TEXT, worker, lambda: left)

    made = plan(params, LITTLE_TEXT, probe, left)
    assert (machine.device, machine.dtype, machine.num_threads) == ("cpu", "float32", 1)
    assert len(probe.shapes) >= 1
    assert made.model.vocab_size == 300
    assert made.trainer.dtype == "float32"
    saved = Probe.model_validate_json(probe.model_dump_json())
    assert saved == probe
    assert plan(params, LITTLE_TEXT, saved, left) == made


def test_the_seconds_of_a_plan_add_up_to_those_that_are_left(make_plan):
    for hours in (0.01, 0.02, 0.1, 1.0, 4.0):
        plan = make_plan(hours=hours)
        assert plan.training_seconds + plan.reserve_seconds == pytest.approx(hours * 3600 - 10)
        assert plan.expected_tokens == pytest.approx(
            plan.tokens_per_second * plan.training_seconds, abs=1.0
        )


def test_more_hours_give_a_larger_model_and_a_better_prediction(make_plan):
    plans = [make_plan(hours=hours) for hours in (0.01, 0.02, 0.1, 1.0, 10.0)]
    sizes = [count_parameters(plan.model) for plan in plans]
    predicted = [plan.predicted_bits_per_byte for plan in plans]
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[0]
    assert predicted == sorted(predicted, reverse=True)


def test_a_faster_machine_gives_a_better_prediction(make_plan, probe):
    faster = Probe(
        machine=probe.machine.model_copy(update={"flops_per_second": 1e14}),
        shapes=[
            timed.model_copy(update={"tokens_per_second": 250 * timed.tokens_per_second})
            for timed in probe.shapes
        ],
    )
    assert make_plan(probe=faster).predicted_bits_per_byte < make_plan().predicted_bits_per_byte


def test_the_shape_taken_is_the_best_predicted_of_those_shown(make_plan):
    plan = make_plan()
    assert plan.alternatives
    assert all(
        other.predicted_bits_per_byte >= plan.predicted_bits_per_byte for other in plan.alternatives
    )
    assert plan.predicted_low < plan.predicted_bits_per_byte < plan.predicted_high


@pytest.mark.parametrize(
    "fixed",
    [
        {"num_layers": 5},
        {"model_dim": 320},
        {"num_heads": 8},
        {"num_kv_heads": 2},
        {"num_heads": 4, "num_kv_heads": 2},
        {"num_layers": 2, "model_dim": 96, "num_heads": 3},
        {"model_dim": 16},
        {"ffn_dim": 100},
        {"context_length": 48},
        {"tie_embeddings": True},
        {"mixture_of_experts": True, "num_experts": 4, "num_active_experts": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("planner", ["measured", "tiers", "manual"])
def test_what_params_fix_is_what_the_model_has(make_plan, fixed, planner):
    overrides = {f"model__{name}": value for name, value in fixed.items()}
    model = make_plan(budget__planner=planner, **overrides).model
    found = model.model_dump() | {"mixture_of_experts": model.is_mixture_of_experts}
    assert {name: found[name] for name in fixed} == fixed
    assert model.num_heads * model.head_dim == model.model_dim


def test_only_widths_that_the_fixed_heads_divide_are_considered(make_plan):
    model = make_plan(model__num_heads=6).model
    assert model.num_heads == 6
    assert model.model_dim % 12 == 0


def test_heads_that_do_not_divide_the_width_are_refused(make_plan):
    with pytest.raises(ParameterError, match="num_heads"):
        make_plan(model__model_dim=100, model__num_heads=7)


def test_heads_that_divide_no_width_considered_are_refused(make_plan):
    with pytest.raises(ParameterError, match="no shape satisfies the model section"):
        make_plan(model__num_heads=997)


@pytest.mark.parametrize("memory_bytes", [650_000_000, 800_000_000, 2_000_000_000])
def test_the_plan_fits_into_memory(make_plan, probe, memory_bytes):
    small = Probe(
        machine=probe.machine.model_copy(update={"memory_bytes": memory_bytes}), shapes=probe.shapes
    )
    plan = make_plan(hours=24.0, probe=small)
    assert plan.memory_bytes <= 0.8 * memory_bytes
    assert plan.memory_bytes == plan_memory_bytes(
        plan.model, plan.trainer, keep_best=plan.keep_best
    )
    assert count_parameters(plan.model) <= count_parameters(make_plan(hours=24.0).model)


def test_where_nothing_fits_into_memory_the_reason_is_said(make_plan, probe):
    tiny = Probe(
        machine=probe.machine.model_copy(update={"memory_bytes": 1_000_000}), shapes=probe.shapes
    )
    with pytest.raises(ParameterError, match=r"fits into 0\.0 GB; fix fewer of model"):
        make_plan(probe=tiny)


@pytest.mark.parametrize("remaining", [-5.0, 0.0, 4.0, 5.0])
def test_with_less_than_the_floor_the_smallest_tier_is_trained_and_said(make_plan, remaining):
    plan = make_plan(hours=0.003, remaining=remaining)
    assert plan.trainer.max_steps == 5
    assert (plan.model.num_layers, plan.model.model_dim, plan.model.num_heads) == (1, 64, 4)
    assert plan.model.context_length == 64
    assert plan.expected_tokens == 5 * plan.trainer.batch_tokens
    assert "ultra-fast tier is trained" in plan.reasons[0]
    assert plan.training_seconds >= 0


class BusyMachine:
    """Times a step as a busy machine does: all of the time that was left for training is
    gone then.
    """

    def __init__(self, seconds):
        self.seconds = seconds

    def call(self, job, **arguments):
        self.seconds = 5.0
        speed = 1000.0
        return {
            "first_seconds": 1.0,
            "step_seconds": arguments["trainer"]["batch_tokens"] / speed,
            "slow_step_seconds": 5.0,
            "tokens_per_second": speed,
            "score_tokens_per_second": 2 * speed,
            "memory_bytes": 1,
        }


def test_where_timing_took_the_time_for_training_the_smallest_tier_is_trained_instead_of_nothing(
    machine, text
):
    there = BusyMachine(20.0)
    params = load_params(hours=0.01)

    def time_left():
        return TimeLeft(there.seconds, Closing(4.5))

    probe = probe_shapes(params, machine, text, there, time_left)
    made = plan(params, text, probe, time_left())
    assert probe.shapes
    assert made.trainer.max_steps == 5
    assert any("ultra-fast tier is trained" in reason for reason in made.reasons)


def test_above_the_floor_the_clock_decides_even_when_only_one_shape_is_left(make_plan):
    plan = make_plan(hours=0.005, remaining=15.0, model__num_layers=1, model__model_dim=64)
    assert plan.training_seconds > FLOOR_SECONDS
    assert plan.trainer.max_steps is None


def test_a_number_of_steps_is_kept_and_given_in_tokens(make_plan):
    plan = make_plan(budget__max_steps=7)
    assert plan.trainer.max_steps == 7
    assert plan.expected_tokens == 7 * plan.trainer.batch_tokens
    assert plan.predicted_bits_per_byte > make_plan().predicted_bits_per_byte


@pytest.mark.parametrize(
    ("hours", "shape"),
    [
        (0.1, (4, 256, 8, 256)),
        (1.0, (12, 512, 16, 512)),
        (2.0, (12, 768, 12, 512)),
        (5.0, (30, 768, 16, 1024)),
    ],
)
def test_the_tiers_give_their_shapes(make_plan, hours, shape):
    plan = make_plan(hours=hours, budget__planner="tiers")
    model = plan.model
    assert (model.num_layers, model.model_dim, model.num_heads, model.context_length) == shape
    assert plan.trainer.max_steps is None


def test_manual_without_a_shape_gives_the_documented_one(make_plan):
    model = make_plan(budget__planner="manual").model
    assert (model.num_layers, model.model_dim, model.num_heads, model.context_length) == (
        12,
        768,
        12,
        1024,
    )


def test_a_little_text_gets_a_sequence_that_it_holds(make_plan):
    little = TextFacts(300, 100, 300, 40, 120)
    for planner in ("measured", "tiers", "manual"):
        plan = make_plan(text=little, budget__planner=planner)
        assert plan.model.context_length < little.num_train_tokens


def test_a_text_that_is_read_often_keeps_the_best_weights_and_says_so(make_plan):
    plan = make_plan(text=LITTLE_TEXT, hours=1.0)
    assert plan.expected_epochs > 2
    assert plan.keep_best
    assert plan.trainer.weight_decay > 0
    assert any("is read" in reason and "times" in reason for reason in plan.reasons)
    assert not make_plan().keep_best


def test_a_gain_by_compiling_is_taken_only_where_it_was_measured(make_plan, probe, time_shape):
    best = make_plan().model
    fixed = {"model__num_layers": best.num_layers, "model__model_dim": best.model_dim}
    eager = probe.shapes[0].model_copy(update={"model": best, "step_seconds": 0.02})
    for step_seconds, is_kept in ((0.01, True), (0.03, False)):
        compiled = eager.model_copy(update={"is_compiled": True, "step_seconds": step_seconds})
        figures = Probe(machine=probe.machine, shapes=[eager, compiled])
        assert make_plan(probe=figures, **fixed).trainer.compile == is_kept


def test_validation_takes_about_a_hundredth_of_the_time_and_scoring_a_bounded_share(make_plan):
    for hours in (0.02, 1.0, 24.0):
        plan = make_plan(hours=hours)
        assert plan.evaluation_seconds <= 0.15 * hours * 3600
        assert plan.validation_tokens >= plan.model.context_length
    assert math.isfinite(plan.evaluation_seconds)


@pytest.mark.parametrize(
    ("hours", "layers", "width", "batch_tokens"),
    [(0.01, 1, 128, 1024), (0.02, 1, 128, 1024), (0.05, 1, 128, 2048), (0.1, 2, 192, 2048)],
)
def test_plans_of_minutes_on_two_cores_are_those_whose_regret_was_measured(
    make_plan, text, hours, layers, width, batch_tokens
):
    # The law of November 2026, fitted to runs of ours alone, chose these (docs/results.md).
    plan = make_plan(hours=hours, text=text.resized(4096, 1.147))
    assert (plan.model.num_layers, plan.model.model_dim) == (layers, width)
    assert plan.trainer.batch_tokens == batch_tokens
