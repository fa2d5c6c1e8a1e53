import itertools
import math

import pytest
import torch

from lightlm.data.loader import Batch, ThreadedDataLoader
from lightlm.errors import TrainingError
from lightlm.training.events import MicroBatchReduced, StepDone, StepSkipped
from lightlm.training.stop_criterion import StepCriterion, TimeCriterion
from lightlm.training.trainer import (
    MAX_CONSECUTIVE_SKIPPED,
    Diverged,
    Measured,
    Progress,
    clip_gradients,
    halve_micro_batch,
    measure_gradients,
    train,
)

EXPERTS = {"num_experts": 4, "num_active_experts": 2, "expert_ffn_dim": 16}


class FakeClock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def copy_state(model, optimizer):
    tensors = dict(model.named_parameters()) | optimizer.state_tensors()
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def is_same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def measure(model, batch, micro_batch_size):
    parameters = list(model.parameters())
    measured = measure_gradients(model, parameters, batch, micro_batch_size)
    return measured, [parameter.grad.clone() for parameter in parameters]


@pytest.mark.parametrize(
    ("change", "shape_change"),
    [
        ({}, {}),
        ({"optimizer": "adamw"}, {}),
        ({"dtype": "bfloat16"}, {}),
        ({}, EXPERTS),
        ({}, {"tie_embeddings": True}),
    ],
    ids=["muon", "adamw", "bfloat16", "experts", "tied"],
)
def test_the_loss_falls_on_a_small_text(build, settings, shape, corpus, change, shape_change):
    config = settings(**change)
    model, rule = build(config, **shape_change)
    tokens = corpus[0].tokens("train")
    with ThreadedDataLoader(tokens, context_length=16, batch_size=4, seed=0) as loader:
        losses = [event.loss for event in train(model, rule, loader, config, StepCriterion(120))]
    assert losses[0] == pytest.approx(math.log(shape().vocab_size), abs=0.2)
    assert sum(losses[-10:]) / 10 < 0.5 * losses[0]


def test_an_event_says_what_the_step_did(build, settings, batches):
    config = settings()
    model, rule = build(config)
    events = list(train(model, rule, batches(), config, StepCriterion(4)))
    assert [event.step for event in events] == [1, 2, 3, 4]
    assert [event.progress for event in events] == [0.0, 0.25, 0.5, 0.75]
    assert [event.total_tokens for event in events] == [64, 128, 192, 256]
    assert {event.batch_tokens for event in events} == {64}
    assert {event.balance_loss for event in events} == {None}


def test_with_experts_the_balance_loss_is_reported_and_part_of_the_gradient(
    build, settings, draw_batch
):
    config = settings()
    model, rule = build(config, **EXPERTS)
    (event,) = train(model, rule, itertools.repeat(draw_batch()), config, StepCriterion(1))
    assert event.balance_loss >= 2.0 - 1e-4
    with_loss, _ = build(config, **EXPERTS)
    without, _ = build(config, **EXPERTS, balance_loss_weight=0.0)
    measure(with_loss, draw_batch(), 4)
    measure(without, draw_batch(), 4)
    router = "layers.0.feedforward.router"
    assert with_loss.get_parameter(router).grad.any()
    assert not torch.equal(with_loss.get_parameter(router).grad, without.get_parameter(router).grad)


@pytest.mark.parametrize("micro_batch_size", [1, 2, 3])
def test_a_batch_in_parts_has_the_gradients_of_the_whole(
    build, settings, draw_batch, micro_batch_size
):
    model, _ = build(settings())
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05)
    whole, wanted = measure(model, draw_batch(), 4)
    parts, found = measure(model, draw_batch(), micro_batch_size)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-4)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    assert parts.gradient_norm == pytest.approx(whole.gradient_norm, rel=1e-4)


def test_the_gradient_norm_is_that_of_all_gradients_together(build, settings, draw_batch):
    model, _ = build(settings())
    measured, gradients = measure(model, draw_batch(), 4)
    together = torch.cat([gradient.flatten() for gradient in gradients])
    assert measured.gradient_norm == pytest.approx(float(together.norm()), rel=1e-5)


def test_gradients_are_scaled_down_to_the_limit_and_never_up():
    parameter = torch.zeros(4, requires_grad=True)
    parameter.grad = torch.tensor([3.0, 0.0, 4.0, 0.0])
    clip_gradients([parameter], 5.0, 10.0)
    assert parameter.grad.tolist() == [3.0, 0.0, 4.0, 0.0]
    clip_gradients([parameter], 5.0, 1.0)
    assert parameter.grad.tolist() == pytest.approx([0.6, 0.0, 0.8, 0.0])


def test_a_step_is_taken_with_gradients_within_the_limit(build, settings, batches):
    config = settings(gradient_clip_norm=0.01)
    model, rule = build(config)
    event = next(train(model, rule, batches(), config, StepCriterion(3)))
    assert event.gradient_norm > 0.01
    together = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    assert float(together.norm()) == pytest.approx(0.01, rel=1e-4)


def poison(kind, model):
    """Make the loss, or only the gradients, not a number; return a handle that ends it."""
    if kind == "loss":
        return model.layers[0].register_forward_hook(
            lambda module, inputs, output: (output[0] * math.nan, None)
        )
    return model.embedding.register_hook(lambda gradient: gradient * math.inf)


@pytest.mark.parametrize("kind", ["loss", "gradients"])
def test_a_step_that_is_not_finite_leaves_weights_and_optimizer_as_they_were(
    build, settings, batches, kind
):
    config = settings()
    model, rule = build(config)
    steps = train(model, rule, batches(), config, StepCriterion(5))
    next(steps)
    before = copy_state(model, rule)
    handle = poison(kind, model)
    event = next(steps)
    assert isinstance(event, StepSkipped)
    assert event.step == 2
    assert not math.isfinite(event.gradient_norm)
    assert is_same(copy_state(model, rule), before)
    handle.remove()
    assert isinstance(next(steps), StepDone)
    assert not is_same(copy_state(model, rule), before)


def test_three_steps_in_a_row_that_are_not_finite_are_too_many(build, settings, batches):
    config = settings()
    model, rule = build(config)
    poison("loss", model)
    before = copy_state(model, rule)
    events = []

    with pytest.raises(
        Diverged, match=r"3 steps in a row were not finite.*loss nan.*learning_rate_scale"
    ):
        for event in train(model, rule, batches(), config, StepCriterion(100)):
            events.append(event)

    assert [type(event) for event in events] == [StepSkipped] * MAX_CONSECUTIVE_SKIPPED
    assert is_same(copy_state(model, rule), before)


def test_a_loss_far_above_the_usual_and_worse_than_chance_is_not_learnt_from(
    build, settings, batches
):
    config = settings()
    model, rule = build(config)
    counters = Progress(loss_ema=1.0)
    with torch.no_grad():
        model.head.mul_(1000.0)
    before = copy_state(model, rule)
    event = next(train(model, rule, batches(), config, StepCriterion(5), counters=counters))
    assert isinstance(event, StepSkipped)
    assert math.isfinite(event.loss)
    assert is_same(copy_state(model, rule), before)


@pytest.mark.parametrize(
    ("loss", "usual", "is_usable"),
    [
        (8.0, None, True),
        (5.9, 2.0, True),
        (6.1, 2.0, False),
        (4.9, 1.0, True),
        (math.nan, None, False),
    ],
)
def test_a_step_is_usable_unless_it_is_a_spike_or_not_finite(loss, usual, is_usable):
    assert Measured(loss, None, 1.0).is_usable(usual, chance=5.0) == is_usable
    assert not Measured(loss, None, math.inf).is_usable(usual, chance=5.0)


def test_half_the_learning_rate_is_half_the_factor(build, settings, batches):
    config = settings()
    factors = []
    for share in (1.0, 0.5):
        model, rule = build(config)
        counters = Progress(learning_rate_scale=share)
        factors.append(
            next(
                train(model, rule, batches(), config, StepCriterion(9), counters=counters)
            ).learning_rate_factor
        )
    assert factors[1] == factors[0] / 2


def test_a_finite_step_forgives_those_before_it(build, settings, batches):
    config = settings()
    model, rule = build(config)
    steps = train(model, rule, batches(), config, StepCriterion(100))
    for _ in range(2):
        handle = poison("loss", model)
        skipped = [next(steps) for _ in range(MAX_CONSECUTIVE_SKIPPED - 1)]
        assert {type(event) for event in skipped} == {StepSkipped}
        handle.remove()
        assert isinstance(next(steps), StepDone)


def fill_memory(model, room, error):
    """Let memory run out for more than `room` sequences at a time."""

    def raise_above_room(module, inputs):
        if inputs[0].shape[0] > room:
            raise error

    return model.layers[0].register_forward_pre_hook(raise_above_room)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"
        ),
    ],
    ids=["a GPU's", "the system's"],
)
def test_out_of_memory_halves_the_micro_batch_and_loses_no_batch(build, settings, batches, error):
    config = settings(dropout=0.1)
    model, rule = build(config)
    fill_memory(model, 1, error)
    counters = Progress()
    events = list(train(model, rule, batches(), config, StepCriterion(3), counters=counters))
    assert [type(event) for event in events] == [
        MicroBatchReduced,
        MicroBatchReduced,
        StepDone,
        StepDone,
        StepDone,
    ]

    assert [event.micro_batch_size for event in events[:2]] == [2, 1]
    assert counters.micro_batch_size == 1
    small = settings(dropout=0.1, micro_batch_size=1)
    wanted, wanted_rule = build(small)
    list(train(wanted, wanted_rule, batches(), small, StepCriterion(3)))
    assert is_same(copy_state(model, rule), copy_state(wanted, wanted_rule))


def test_one_sequence_that_does_not_fit_ends_the_training(build, settings, batches):
    config = settings(micro_batch_size=1)
    model, rule = build(config)
    fill_memory(model, 0, torch.OutOfMemoryError())
    with pytest.raises(TrainingError, match=r"one sequence does not fit.*model\.context_length"):
        next(train(model, rule, batches(), config, StepCriterion(3)))


def test_another_error_of_the_runtime_is_not_taken_for_memory(build, settings, batches):
    config = settings()
    model, rule = build(config)
    fill_memory(model, 0, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        next(train(model, rule, batches(), config, StepCriterion(3)))


@pytest.mark.parametrize(("size", "half"), [(2, 1), (3, 2), (8, 4)])
def test_half_a_micro_batch_is_smaller_and_at_least_one(size, half):
    assert halve_micro_batch(size) == half


def test_dropout_depends_on_the_step_alone(build, settings, draw_batch):
    config = settings(dropout=0.3)
    states = []
    for disturb in (False, True):
        model, rule = build(config)
        for _ in train(model, rule, itertools.repeat(draw_batch()), config, StepCriterion(3)):
            if disturb:
                torch.rand(5)
        states.append(copy_state(model, rule))
    assert is_same(*states)


def test_dropout_takes_the_largest_seed(build, settings, batches):
    config = settings(dropout=0.3, seed=2**63 - 1)
    model, rule = build(config)
    assert len(list(train(model, rule, batches(), config, StepCriterion(2)))) == 2


@pytest.mark.parametrize("change", [{}, {"micro_batch_size": 2}])
def test_the_first_part_of_the_budget_is_trained_with_half_the_context(
    build, settings, draw_batch, change
):
    config = settings(context_ramp_fraction=0.5, **change)
    model, rule = build(config)
    seen = []
    compute_loss = model.compute_loss

    def watch(tokens, targets):
        seen.append((tokens.clone(), targets.clone()))
        return compute_loss(tokens, targets)

    model.compute_loss = watch
    batch = draw_batch()
    events = list(train(model, rule, itertools.repeat(batch), config, StepCriterion(4)))
    size, length = batch.inputs.shape
    pieces = size // config.micro_batch_size
    halves = seen[: 2 * pieces]
    wholes = seen[2 * pieces :]
    assert {tuple(tokens.shape) for tokens, _ in halves} == {
        (2 * config.micro_batch_size, length // 2)
    }

    assert {tuple(tokens.shape) for tokens, _ in wholes} == {(config.micro_batch_size, length)}
    for part, wanted in enumerate(batch):
        assert torch.equal(
            torch.cat([piece[part] for piece in halves[:pieces]]).view(size, length), wanted
        )
        assert torch.equal(torch.cat([piece[part] for piece in wholes[-pieces:]]), wanted)

    assert [event.batch_tokens for event in events] == [batch.inputs.numel()] * 4


def test_a_context_that_has_no_half_is_trained_whole(build, settings, draw_batch):
    whole = draw_batch()
    odd = Batch(whole.inputs[:, :-1], whole.targets[:, :-1])
    states = []
    for share in (0.0, 1.0):
        config = settings(context_ramp_fraction=share)
        model, rule = build(config)
        list(train(model, rule, itertools.repeat(odd), config, StepCriterion(2)))
        states.append(copy_state(model, rule))
    assert is_same(*states)


def test_asked_to_stop_no_further_step_is_taken(build, settings, batches):
    config = settings()
    model, rule = build(config)
    taken = []
    for event in train(
        model, rule, batches(), config, StepCriterion(100), should_stop=lambda: len(taken) == 3
    ):
        taken.append(event)
    assert len(taken) == 3


def test_after_the_deadline_no_step_is_taken(build, settings, batches):
    config = settings()
    model, rule = build(config)
    before = copy_state(model, rule)
    assert list(train(model, rule, batches(), config, TimeCriterion(-1.0, FakeClock()))) == []
    assert is_same(copy_state(model, rule), before)


@pytest.mark.parametrize(
    "seconds",
    [[1.0], [0.01] * 9 + [0.5], [0.5] * 20 + [2.0] * 50, [3.0] * 5 + [0.2]],
    ids=["steady", "spiky", "throttled", "freed"],
)
def test_whatever_the_speed_the_rate_ends_near_zero_before_the_deadline(
    build, settings, batches, seconds
):
    clock = FakeClock()
    config = settings(num_threads=1)
    model, rule = build(config, num_layers=1)

    def slow_batches():
        for index, batch in enumerate(batches()):
            clock.now += seconds[index % len(seconds)]
            yield batch

    pace = TimeCriterion(60.0, clock)
    events = list(train(model, rule, slow_batches(), config, pace, clock=clock))
    assert clock.now <= 160.0
    # A step that does not fit is not begun, so the last rate is at most two of the slowest steps
    # from zero.
    assert 0 <= events[-1].learning_rate_factor <= 2 * max(seconds) / 60
    assert max(event.learning_rate_factor for event in events) > 0.8


@pytest.mark.parametrize("shape_change", [{}, EXPERTS], ids=["dense", "experts"])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"dtype": "bfloat16"},
        {"dropout": 0.3},
        {"attention": "matmul"},
        {"context_ramp_fraction": 0.5},
    ],
)
def test_layers_that_are_computed_again_give_the_same_gradients(
    build, settings, draw_batch, change, shape_change
):
    found = []
    for is_recomputed in (False, True):
        config = settings(gradient_checkpointing=is_recomputed, **change)
        model, _ = build(config, **shape_change)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.05)
        torch.manual_seed(1)
        found.append(measure(model, draw_batch(), 2))

    (kept, wanted), (again, gradients) = found
    assert again == kept
    assert all(torch.equal(one, other) for one, other in zip(gradients, wanted, strict=True))


def test_layers_that_are_computed_again_keep_their_input_only(build, settings, draw_batch):
    def keep(tensor):
        kept[-1] += tensor.nbytes
        return tensor

    kept = []
    for is_recomputed in (False, True):
        model, _ = build(settings(gradient_checkpointing=is_recomputed), num_layers=6)
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.compute_loss(draw_batch().inputs, draw_batch().targets)
    assert kept[1] < 0.3 * kept[0]
