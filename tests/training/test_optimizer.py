import pytest
import torch

from lightlm.training.muon import orthogonalize
from lightlm.training.trainer import measure_gradients

EXPERTS = {"num_experts": 4, "num_active_experts": 2, "expert_ffn_dim": 16}
VARIANTS = [{}, {"tie_embeddings": True}, EXPERTS]


def set_gradients(model, draw_batch):
    measure_gradients(model, list(model.parameters()), draw_batch(), 4)


@pytest.mark.parametrize("change", VARIANTS, ids=["dense", "tied", "experts"])
@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_every_parameter_is_moved_by_a_step(build, settings, draw_batch, kind, change):
    model, rule = build(settings(optimizer=kind), **change)
    # Output projections start at zero, and what is before them gets no gradient until they have
    # moved.
    for _ in range(2):
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        set_gradients(model, draw_batch)
        rule.step(1.0, 0.5)
    still = [name for name, weight in model.named_parameters() if torch.equal(weight, before[name])]
    assert still == []


@pytest.mark.parametrize("change", VARIANTS, ids=["dense", "tied", "experts"])
def test_muon_takes_all_matrices_of_the_layers_but_the_router_and_adamw_the_rest(
    build, settings, change
):
    model, rule = build(settings(), **change)
    by_muon = sum(buffer.numel() for buffer in rule.muon.momenta.values())
    by_adamw = sum(slot.weight.numel() for slot in rule.adamw.slots.values())
    assert by_muon + by_adamw == sum(weight.numel() for weight in model.parameters())
    layers = {name for name in rule.adamw.slots if name.startswith("layers.")}
    assert {name.rpartition(".")[2] for name in layers} <= {
        "query_norm",
        "key_norm",
        "attention_norm",
        "feedforward_norm",
        "router",
    }


def test_query_key_value_gate_and_up_are_matrices_of_their_own(build, settings, draw_batch):
    model, rule = build(settings(weight_decay=0.0), num_layers=1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01)

    set_gradients(model, draw_batch)
    stacked = model.layers[0].attention.query_key_value
    before = stacked.detach().clone()
    gradient = stacked.grad.clone()
    rule.step(1.0, 0.0)
    moved = before - stacked.detach()
    # 2 heads of queries and 1 of keys and of values, each 16 dimensions, over a width of 32.
    for rows in (slice(0, 32), slice(32, 48), slice(48, 64)):
        wanted = 0.02 * orthogonalize(gradient[None, rows], torch.float32)[0]
        torch.testing.assert_close(moved[rows], wanted, atol=1e-5, rtol=1e-3)


def test_each_kind_of_parameter_has_its_own_rate(build, settings):
    config = settings(embedding_learning_rate=0.1, head_learning_rate=0.2, gain_learning_rate=0.3)
    _, rule = build(config, **EXPERTS)
    peaks = {name: slot.peak for name, slot in rule.adamw.slots.items()}
    assert peaks["embedding"] == 0.1
    assert peaks["head"] == peaks["layers.0.feedforward.router"] == 0.2
    assert peaks["norm"] == peaks["layers.1.attention.query_norm"] == 0.3


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_weight_decay_acts_on_matrices_alone(build, settings, kind):
    model, rule = build(settings(optimizer=kind, weight_decay=0.5), num_layers=1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(1.0)
            weight.grad = torch.zeros_like(weight)

    rule.step(1.0, 0.5)
    shrunk = {name for name, weight in model.named_parameters() if (weight < 1.0).all()}
    prefix = "layers.0."
    matrices = (
        "attention.query_key_value",
        "attention.output",
        "feedforward.gate_up",
        "feedforward.down",
    )

    assert shrunk == {prefix + name for name in matrices}


def test_at_a_factor_of_zero_nothing_moves(build, settings, draw_batch):
    model, rule = build(settings(weight_decay=0.1))
    set_gradients(model, draw_batch)
    before = [weight.detach().clone() for weight in model.parameters()]
    rule.step(0.0, 1.0)
    assert all(
        torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True)
    )


@pytest.mark.parametrize("kind", ["muon", "adamw"])
@pytest.mark.parametrize("change", VARIANTS, ids=["dense", "tied", "experts"])
def test_the_state_goes_out_and_in_again(build, settings, draw_batch, kind, change):
    config = settings(optimizer=kind)
    model, rule = build(config, **change)
    set_gradients(model, draw_batch)
    rule.step(1.0, 0.5)
    state = {name: tensor.clone() for name, tensor in rule.state_tensors().items()}
    _, other = build(config, **change)
    other.load_state_tensors(state)
    loaded = other.state_tensors()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
