import math

import pytest
import torch
from torch.nn import functional

from lightlm.model import accounting, cross_entropy
from lightlm.model.accounting import choose_chunk_rows
from lightlm.model.cross_entropy import each_nats, mean_nats


@pytest.fixture
def drawn():
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(50, 16, generator=draw, requires_grad=True)
    weight = torch.randn(300, 16, generator=draw, requires_grad=True)
    return hidden, weight, torch.randint(0, 300, (50,), generator=draw)


@pytest.mark.parametrize("rows", [1, 7, 50])
def test_the_mean_and_both_gradients_are_those_of_autograd_whatever_the_chunk(
    drawn, rows, monkeypatch
):
    monkeypatch.setattr(accounting, "FEWEST_ROWS", rows)
    monkeypatch.setattr(cross_entropy, "CHUNK_LOGITS", 0)
    hidden, weight, targets = drawn
    plain = functional.cross_entropy(hidden @ weight.T, targets)
    wanted = torch.autograd.grad(plain * 3, (hidden, weight))
    fused = mean_nats(hidden, weight, targets)
    torch.testing.assert_close(fused, plain)
    torch.testing.assert_close(torch.autograd.grad(fused * 3, (hidden, weight)), wanted)


def test_bfloat16_hidden_states_keep_gradients_within_its_rounding(drawn):
    hidden, weight, targets = drawn
    plain = functional.cross_entropy(hidden @ weight.T, targets)
    wanted = torch.autograd.grad(plain, (hidden, weight))
    fused = mean_nats(hidden.bfloat16(), weight, targets)
    found = torch.autograd.grad(fused, (hidden, weight))
    assert fused.item() == pytest.approx(plain.item(), rel=0.02)
    for one, other in zip(found, wanted, strict=True):
        assert functional.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.999


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_target_whose_probability_underflows_costs_a_finite_loss_with_the_right_gradient(dtype):
    hidden = torch.tensor([[100.0, 0.0]], dtype=dtype, requires_grad=True)
    weight = torch.eye(2) * 10
    loss = mean_nats(hidden, weight, torch.tensor([1]))
    assert 87 < loss.item() < 88
    loss.backward()
    assert hidden.grad is not None
    assert hidden.grad.tolist() == [[10.0, -10.0]]


def test_a_hidden_state_that_is_no_number_costs_no_number(drawn):
    hidden, weight, targets = drawn
    assert math.isnan(mean_nats(hidden * math.nan, weight, targets).item())


def test_the_nats_of_each_target_average_to_the_mean(drawn):
    hidden, weight, targets = drawn
    nats = each_nats(hidden.detach(), weight.detach(), targets)
    assert nats.shape == targets.shape
    torch.testing.assert_close(nats.mean(), mean_nats(hidden, weight, targets))


def test_a_head_of_zeros_costs_the_logarithm_of_the_vocabulary(drawn):
    hidden, _, targets = drawn
    nats = each_nats(hidden.detach(), torch.zeros(300, 16), targets)
    torch.testing.assert_close(nats, torch.full((50,), math.log(300)))


def test_a_chunk_has_the_rows_of_a_good_product_and_at_most_all():
    assert choose_chunk_rows(5000, 1 << 30) == 256
    assert choose_chunk_rows(5000, 1 << 30, is_gpu=True) == 1024
    assert choose_chunk_rows(5000, 4096) == 512
    assert choose_chunk_rows(10, 257) == 10
