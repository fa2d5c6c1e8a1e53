import math

import pytest
import torch

from lightlm.training.events import StepDone, StepSkipped
from lightlm.training.loss_scale import FIRST_SCALE, GROWTH_STEPS, LossScale
from lightlm.training.stop_criterion import StepCriterion
from lightlm.training.timing import random_batch
from lightlm.training.trainer import Progress, measure_gradients, train


def test_only_float16_is_scaled():
    for dtype in ("float32", "bfloat16"):
        scale = LossScale(dtype)
        assert scale.accept(is_finite=False)
        assert scale.factor == 1.0


def test_an_overflow_halves_the_scale_and_many_good_steps_double_it():
    scale = LossScale("float16")
    assert not scale.accept(is_finite=False)
    assert scale.factor == FIRST_SCALE / 2
    assert all(scale.accept(is_finite=True) for _ in range(GROWTH_STEPS))
    assert scale.factor == FIRST_SCALE


def test_what_overflows_without_any_scale_is_no_matter_of_scale():
    scale = LossScale("float16", 2.0)
    assert not scale.accept(is_finite=False)
    assert scale.factor == 1.0
    assert scale.accept(is_finite=False)


def test_scaled_gradients_are_scaled_back(build, settings, shape):
    config = settings()
    model, _ = build(config)
    batch = random_batch(shape(), config)
    parameters = list(model.parameters())
    plain = measure_gradients(model, parameters, batch, 4)
    gradients = [parameter.grad.clone() for parameter in parameters]
    scaled = measure_gradients(model, parameters, batch, 4, loss_scale=1024.0)
    assert scaled.loss == pytest.approx(plain.loss)
    assert scaled.gradient_norm == pytest.approx(plain.gradient_norm, rel=1e-4)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_float16_trains_as_float32_does(build, settings, shape, optimizer):
    losses = {}
    for dtype in ("float32", "float16"):
        config = settings(dtype=dtype, optimizer=optimizer)
        model, made = build(config)
        batch = random_batch(shape(), config)
        events = list(train(model, made, iter([batch] * 30), config, StepCriterion(30)))
        losses[dtype] = [event.loss for event in events if isinstance(event, StepDone)]
    assert losses["float16"][-1] < 0.9 * losses["float16"][0]
    assert losses["float16"][-1] == pytest.approx(losses["float32"][-1], rel=0.05)


def test_steps_that_overflow_are_left_out_until_the_scale_fits(build, settings, shape):
    config = settings(dtype="float16")
    model, optimizer = build(config)
    before = model.embedding.detach().clone()
    counters = Progress(loss_scale=LossScale("float16", 2.0**40))
    batch = random_batch(shape(), config)
    steps = train(
        model, optimizer, iter([batch] * 60), config, StepCriterion(60), counters=counters
    )

    skipped = next(steps)
    assert isinstance(skipped, StepSkipped)
    assert not math.isfinite(skipped.gradient_norm)
    assert torch.equal(model.embedding, before)

    kinds = [type(event) for event in steps]
    assert kinds.count(StepSkipped) > 3  # more than what ends a run that diverges
    assert kinds[-1] is StepDone
    assert counters.loss_scale is not None
    assert counters.loss_scale.factor < 2.0**40
