import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from lightlm.model.config import ModelConfig
from lightlm.model.transformer import Transformer, sample_dropout_mask

CONFIG = ModelConfig(
    vocab_size=300,
    num_layers=2,
    model_dim=32,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    ffn_dim=48,
    context_length=32,
)


@settings(max_examples=20, deadline=None)
@given(position=st.integers(0, 31), token=st.integers(0, 299), seed=st.integers(0, 1000))
def test_changing_a_token_leaves_earlier_logits_unchanged_and_changes_its_own(
    position, token, seed
):
    model = Transformer(CONFIG)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * 0.3)
        tokens = torch.randint(0, 300, (1, 32), generator=draw)
        changed = tokens.clone()
        changed[0, position] = token if token != tokens[0, position] else (token + 1) % 300
        before = model(tokens)
        after = model(changed)

    torch.testing.assert_close(after[:, :position], before[:, :position], atol=1e-6, rtol=0)
    assert not torch.equal(after[:, position], before[:, position])


def test_a_sequence_does_not_see_the_others_of_its_batch(build, variant):
    model = build(**variant)
    tokens = torch.arange(60).view(3, 20)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens)[1:2], model(tokens[1:2]), atol=1e-5, rtol=1e-5)


def test_the_nats_are_the_cross_entropy_of_the_logits(build, variant):
    model = build(**variant)
    tokens = torch.arange(20).view(2, 10)
    targets = torch.arange(100, 120).view(2, 10)
    with torch.no_grad():
        logits = model(tokens)
        nats = model(tokens, targets)
        loss, _ = model.compute_loss(tokens, targets)
    wanted = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    torch.testing.assert_close(nats.flatten(), wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss, wanted.mean(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tie_embeddings", [False, True])
def test_a_fresh_model_knows_nothing(tie_embeddings):
    model = Transformer(CONFIG.model_copy(update={"tie_embeddings": tie_embeddings}))
    model.initialize(0)
    tokens = torch.arange(32).view(1, 32)
    with torch.no_grad():
        assert float(model(tokens, tokens + 100).mean()) == pytest.approx(math.log(300), abs=0.2)


def test_the_weights_are_a_pure_function_of_the_seed():
    one = Transformer(CONFIG)
    same = Transformer(CONFIG)
    other = Transformer(CONFIG)
    one.initialize(7)
    torch.rand(3)  # the global generator plays no part
    same.initialize(7)
    other.initialize(8)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.embedding, other.embedding)


def test_every_weight_gets_a_gradient(build, variant):
    model = build(**variant).train()
    tokens = torch.arange(64).view(2, 32)
    loss, balance = model.compute_loss(tokens, tokens + 1)
    (loss if balance is None else loss + balance).backward()
    without = [
        name
        for name, weight in model.named_parameters()
        if weight.grad is None or not weight.grad.any()
    ]
    assert without == []


def test_the_gradients_of_training_are_those_of_the_plain_loss(build, variant):
    model = build(**variant)
    tokens = torch.arange(32).view(2, 16)
    loss, _ = model.compute_loss(tokens, tokens + 1)
    found = torch.autograd.grad(loss, list(model.parameters()))
    plain = functional.cross_entropy(model(tokens).flatten(0, 1), (tokens + 1).flatten())
    wanted = torch.autograd.grad(plain, list(model.parameters()))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_only_a_mixture_of_experts_has_a_balance_loss(build, variant):
    _, balance = build(**variant).compute_loss(
        torch.zeros(1, 8, dtype=torch.int64), torch.ones(1, 8).long()
    )
    assert (balance is not None) == ("num_experts" in variant)


@pytest.mark.parametrize("change", [{}, {"num_kv_heads": 2}, {"tie_embeddings": True}])
def test_bfloat16_logits_are_near_the_fp32_ones(build, change):
    model = build(**change)
    tokens = torch.arange(20).view(1, 20)
    with torch.no_grad():
        exact = model(tokens)
        model.compute_dtype = torch.bfloat16
        rounded = model(tokens)
    assert rounded.dtype == torch.float32
    assert functional.cosine_similarity(exact, rounded, dim=-1).min() > 0.99


def test_dropout_acts_in_training_only():
    model = Transformer(CONFIG, dropout=0.5)
    model.initialize(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01)
        tokens = torch.arange(16).view(1, 16)
        assert torch.equal(model.eval()(tokens), model(tokens))
        assert not torch.equal(model.train()(tokens), model(tokens))


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(2, 3, 16, 512), (2, 1, 3, 3001)])
def test_dropout_keeps_each_number_with_its_own_chance(shape, rate):
    torch.manual_seed(0)
    mask = sample_dropout_mask(shape, rate, torch.device("cpu"))
    assert mask.shape == shape
    assert set(mask.unique().tolist()) == {0, 1}
    spread = (rate * (1 - rate) / mask.numel()) ** 0.5
    assert float(mask.double().mean()) == pytest.approx(1 - rate, abs=5 * spread)
    # neighbors in one number of 64 bits
    first = mask.flatten()[:-1].double()
    second = mask.flatten()[1:].double()
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 5 * mask.numel() ** -0.5


def test_dropout_leaves_the_mean_of_what_a_layer_adds(build):
    plain = build()
    model = Transformer(plain.config, dropout=0.3)
    model.load_state_dict(plain.state_dict())
    layer = model.layers[0]
    x = torch.randn(1, 16, plain.config.model_dim)
    cosine, sine = model._positions(torch.zeros(1, 16, dtype=torch.long), None)

    with torch.no_grad():
        wanted = layer(x, cosine, sine)[0] - x
        torch.manual_seed(1)
        added = [
            model.train()._call_layer(layer, x, cosine, sine, None)[0] - x for _ in range(3000)
        ]

    # What attention adds reaches the feed-forward, which is not linear: the mean is near, not
    # equal.
    assert (
        functional.cosine_similarity(torch.stack(added).mean(0).flatten(), wanted.flatten(), dim=0)
        > 0.97
    )
    assert not torch.equal(added[0], added[1])


def test_layers_computed_again_drop_the_same(build):
    gradients = []
    for recomputes in (False, True):
        plain = build()
        model = Transformer(plain.config, dropout=0.3)
        model.load_state_dict(plain.state_dict())
        model.recomputes_layers = recomputes
        torch.manual_seed(3)
        tokens = torch.arange(32).view(2, 16)
        model.train().compute_loss(tokens, tokens + 1)[0].backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})

    assert gradients[0].keys() == gradients[1].keys()
    for name, wanted in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], wanted, atol=1e-6, rtol=1e-6)
