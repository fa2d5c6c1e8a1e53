import pytest

from lightlm.model.accounting import flops_per_token
from lightlm.training.step_parts import Parts, extrapolate, time_step_parts


@pytest.mark.parametrize(
    "change",
    [
        {"num_layers": 1},
        {"num_layers": 6},
        {"num_layers": 3, "num_experts": 4, "num_active_experts": 2, "expert_ffn_dim": 16},
    ],
)
def test_parts_of_a_step_give_the_speed_of_whole_steps(shape, settings, change):
    trainer = settings(batch_tokens=4096)
    timing = time_step_parts(shape(**change), trainer, tokens=64, max_seconds=0.05)
    assert timing.first_seconds > 0
    assert timing.tokens_per_second == pytest.approx(4096 / timing.step_seconds)
    assert timing.score_tokens_per_second > 0


def test_a_layer_costs_what_the_second_one_added(shape):
    model = shape(num_layers=10)
    one, two = Parts(passes=1.0, update=0.3), Parts(passes=1.5, update=0.5)
    deep = extrapolate(model, one, two)
    assert deep.update == pytest.approx(0.5 + 8 * 0.2)
    assert deep.passes == pytest.approx(1.5 + 8 * 0.5)


@pytest.mark.parametrize("first", [5.0, 0.0])
def test_a_noisy_difference_does_not_make_layers_free_or_dear(shape, first):
    model = shape(num_layers=10)
    deep = extrapolate(model, Parts(first, 0.1), Parts(1.5, 0.2))
    flops = [flops_per_token(model.model_copy(update={"num_layers": n})) for n in (2, 10)]
    usual = 1.5 * flops[1] / flops[0]
    assert 0.4 * usual < deep.passes < 2.1 * usual


def test_on_a_machine_too_slow_for_more_a_single_pass_and_operations_tell_the_speed(
    shape, settings
):
    timing = time_step_parts(
        shape(num_layers=6), settings(batch_tokens=4096), tokens=64, max_seconds=0.0
    )
    assert timing.step_seconds > timing.first_seconds
    model = shape(num_layers=10)
    deep = extrapolate(model, None, Parts(1.5, 0.2))
    assert deep.update == pytest.approx(1.0)
    flops = [flops_per_token(model.model_copy(update={"num_layers": n})) for n in (2, 10)]
    assert deep.passes == pytest.approx(1.5 * flops[1] / flops[0])
