"""Timings with a worker and a clock of literal figures: what is timed, in which order, and what
follows.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from lightlm.budget.probe import Probe
from lightlm.budget.ranking import TimeLeft
from lightlm.budget.reserve import Closing
from lightlm.budget.shapes import dense_shape
from lightlm.budget.timings import PROBE_FRACTION, Timings
from lightlm.model.accounting import flops_per_token
from lightlm.model.config import ModelConfig
from lightlm.params import load_params
from lightlm.store.lock import ignore


class Machine:
    """Stands for the machine: each timing takes `seconds` of its clock.

    A step of the first model takes what `step` says of its config, one of another model in
    proportion to its work.
    """

    def __init__(self, seconds: float, step: Callable[[Mapping[str, Any]], float]) -> None:
        self.now = 0.0
        self.seconds = seconds
        self.step = step
        self.timed: list[Mapping[str, Any]] = []
        self.jobs: list[str] = []
        self.tokens: list[int] = []
        self.work = 0

    def call(self, job: str, **arguments: Any) -> dict[str, Any]:
        trainer = arguments["trainer"]
        self.jobs.append(job)
        self.tokens.append(arguments.get("tokens"))
        self.timed.append(trainer)
        self.now += self.seconds
        work = flops_per_token(ModelConfig.model_validate(arguments["model"]))
        self.work = self.work or work
        step = self.step(trainer) * work / self.work
        speed = trainer["batch_tokens"] / step

        return {
            "first_seconds": 0.1,
            "step_seconds": step,
            "slow_step_seconds": step,
            "tokens_per_second": speed,
            "score_tokens_per_second": 2 * speed,
            "memory_bytes": 1,
        }


@pytest.fixture
def shapes(time_shape) -> list[ModelConfig]:
    """The favorite, a narrower and a wider one."""
    return [time_shape(dim, 0.2).model for dim in (192, 64, 384)]


@pytest.fixture
def make_timings(machine, text) -> Callable[..., Timings]:
    """Gives the timings of a budget on a Machine."""

    def make(
        there: Machine,
        hours: float = 0.1,
        probed_seconds: float = 0.5,
        most_seconds: float = math.inf,
        report: Callable[[str], None] = ignore,
        **overrides: Any,
    ) -> Timings:
        dotted = {name.replace("__", "."): value for name, value in overrides.items()}
        # else it follows the speed found so far
        dotted = {"training.batch_tokens": 2048} | dotted
        return Timings(
            load_params(overrides=dotted, hours=hours),
            text,
            there,
            lambda: TimeLeft(hours * 3600 - there.now, Closing(2.0)),
            Probe(machine=machine, shapes=()),
            clock=lambda: there.now,
            probed_seconds=probed_seconds,
            most_seconds=most_seconds,
            report=report,
        )

    return make


def steady(trainer: Mapping[str, Any]) -> float:
    return 0.02


@pytest.mark.parametrize(
    ("hours", "seconds", "num_timed"),
    [(0.005, 0.4, 1), (0.01, 0.7, 1), (0.02, 1.0, 3), (1, 2.0, 3)],
)
def test_no_second_shape_is_timed_where_it_would_exceed_the_share_of_the_budget(
    make_timings, shapes, hours, seconds, num_timed
):
    there = Machine(seconds, steady)
    timings = make_timings(there, hours)
    timings.time_around(shapes)
    assert len(timings.probe.shapes) == num_timed
    assert num_timed == 1 or there.now <= PROBE_FRACTION * hours * 3600


@pytest.mark.parametrize(("probed_seconds", "num_timed"), [(0.5, 3), (1.8, 1), (9.0, 1)])
def test_what_was_measured_before_counts_to_the_share_of_the_budget(
    make_timings, shapes, probed_seconds, num_timed
):
    there = Machine(1.0, steady)
    timings = make_timings(there, 0.02, probed_seconds)
    timings.time_around(shapes)
    assert len(timings.probe.shapes) == num_timed


@pytest.mark.parametrize(
    ("slowdown", "num_timed"), [(3.0, 4), (1.3, 3)], ids=["disturbed", "as-usual"]
)
def test_a_first_shape_that_was_timed_in_bad_company_is_timed_again(
    make_timings, shapes, slowdown, num_timed
):
    there = Machine(1.0, lambda trainer: 0.02 * (slowdown if len(there.timed) == 1 else 1.0))
    timings = make_timings(there)
    timings.time_around(shapes)
    assert len(there.timed) == num_timed
    assert (timings.probe.shapes[0].step_seconds == pytest.approx(0.02)) == (slowdown == 3.0)


def test_the_other_attention_kernel_and_half_the_micro_batch_are_timed_where_there_is_time(
    make_timings, shapes
):
    there = Machine(1.0, steady)
    timings = make_timings(there)
    timings.time_around(shapes)
    timings.try_variants()
    usual = there.timed[0]
    others = there.timed[3:]
    assert usual["attention"] == "matmul"
    assert [(t["attention"], t["micro_batch_size"]) for t in others] == [
        ("sdpa", usual["micro_batch_size"]),
        ("matmul", usual["micro_batch_size"] // 2),
    ]

    assert timings.probe.find_variant(shapes[0].context_length) is None
    chosen = timings.choose(shapes[0])
    assert (chosen.attention, chosen.micro_batch_size) == ("matmul", usual["micro_batch_size"])


def test_the_favorite_compiled_is_part_of_the_time_for_timing(make_timings, shapes):
    hours = 0.05
    there = Machine(2.0, steady)
    timings = make_timings(there, hours)
    timings.time_around(shapes)
    timings.try_variants()
    timings.try_compiling(timings.ranking.judge(shapes[0]))
    assert [timed["compile"] for timed in there.timed] == [False, False, False, True]
    assert there.now <= PROBE_FRACTION * hours * 3600


def test_a_kernel_that_was_measured_faster_is_taken_for_every_shape_and_said(make_timings, shapes):
    there = Machine(1.0, lambda trainer: 0.01 if trainer["attention"] == "sdpa" else 0.02)
    timings = make_timings(there)
    timings.time_around(shapes)
    timings.try_variants()
    assert {timings.choose(model).attention for model in shapes} == {"sdpa"}
    assert "sdpa attention" in timings.probe.notes[-1]


def test_smaller_micro_batches_that_were_measured_faster_are_taken(make_timings, shapes):
    there = Machine(1.0, lambda trainer: 0.001 * trainer["micro_batch_size"])
    timings = make_timings(there)
    timings.time_around(shapes)
    whole = timings.choose(shapes[0]).micro_batch_size
    timings.try_variants()
    assert timings.choose(shapes[0]).micro_batch_size == whole // 2


def test_what_params_fix_is_not_timed_otherwise(make_timings, shapes):
    there = Machine(1.0, steady)
    timings = make_timings(there, model__flash_attention=True, training__micro_batch_size=4)
    timings.time_around(shapes)
    timings.try_variants()
    assert {(t["attention"], t["micro_batch_size"]) for t in there.timed} == {("flash", 4)}
    assert len(there.timed) == 3


def test_a_probe_file_gives_the_same_variant_again(make_timings, shapes):
    there = Machine(1.0, lambda trainer: 0.01 if trainer["attention"] == "sdpa" else 0.02)
    timings = make_timings(there)
    timings.time_around(shapes)
    timings.try_variants()
    again = make_timings(there)
    again.probe = Probe.model_validate_json(timings.probe.model_dump_json())
    assert again.choose(shapes[0]) == timings.choose(shapes[0])


def test_a_step_that_takes_seconds_is_timed_by_its_parts(make_timings, machine):
    there = Machine(3.0, steady)
    timings = make_timings(there, hours=24.0, training__batch_tokens=262_144)
    wide = dense_shape(32_768, 12, 768, 1024)
    timings.time_around([wide])
    assert there.jobs == ["time_step_parts"]
    timed = timings.probe.shapes[0]
    assert timed.is_extrapolated
    assert timed.model == wide
    # a pass over two layers takes a fraction of the seconds of a timing
    passes = there.tokens[0] * flops_per_token(wide.model_copy(update={"num_layers": 2}))
    assert passes / machine.usual_flops < 4.0


def test_measuring_ends_within_a_minute_however_long_the_budget(make_timings, shapes):
    lines: list[str] = []
    there = Machine(8.0, steady)
    timings = make_timings(there, hours=1000.0, most_seconds=30.0, report=lines.append)
    timings.time_around(shapes)
    timings.try_variants()
    timings.try_compiling(timings.ranking.judge(shapes[0]))
    assert there.now <= 30.0
    assert len(lines) == len(there.timed)
    assert lines[0].startswith("Timing 3 layers x 192 dims")


def test_what_there_is_no_time_to_compile_is_assumed_to_be_compiled(make_timings, shapes):
    there = Machine(8.0, steady)
    timings = make_timings(there, hours=24.0, most_seconds=20.0)
    timings.time_around(shapes)
    timings.try_compiling(timings.ranking.judge(shapes[0]))
    assert timings.probe.assumes_compiled
    assert not any(timed["compile"] for timed in there.timed)
    assert timings.ranking.judge(shapes[0]).is_compiled
    assert any("compiling was not timed" in note for note in timings.probe.notes)


def test_variants_of_a_shape_are_timed_in_the_way_that_the_shape_was(make_timings):
    there = Machine(1.0, lambda trainer: 20.0)  # far slower than the matrix rate promised
    timings = make_timings(there, hours=24.0)
    timings.time_around([dense_shape(2048, 3, 192, 128)])
    timings.try_variants()
    assert len(there.jobs) > 1
    assert set(there.jobs[:1]) == set(there.jobs) == {"time_steps"}
