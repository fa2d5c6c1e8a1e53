"""Tests of packed one-token steps: the logits are the model's, with and without padding, grouped
heads or not.
"""

import pytest
import torch

from lightlm.model import packed_products
from lightlm.model.attention import KVCache
from lightlm.model.config import ModelConfig
from lightlm.model.packed import PackedStepper, can_halve, can_step
from lightlm.model.packed_products import HalfLinear, pack
from lightlm.model.transformer import Transformer


def build(dtype: torch.dtype = torch.float32, **change: object) -> Transformer:
    values = {
        "vocab_size": 257,
        "num_layers": 3,
        "model_dim": 32,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 8,
    }

    model = Transformer(
        ModelConfig.model_validate(values | {"ffn_dim": 48, "context_length": 32} | change)
    )
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * 0.4)

    model.to(dtype).compute_dtype = dtype
    return model.eval()


def fill(model: Transformer, padding: list[int] | None = None) -> KVCache:
    pad = None if padding is None else torch.tensor(padding)
    cache = KVCache.allocate(model.config, 2, 20, dtype=torch.float32, padding=pad)
    tokens = torch.randint(0, 257, (2, 6), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.hidden_states(tokens, cache)
    return cache


@pytest.mark.parametrize("padding", [None, [0, 4]], ids=["no padding", "padding"])
@pytest.mark.parametrize("num_kv_heads", [2, 4])
def test_packed_steps_give_the_models_logits(padding: list[int] | None, num_kv_heads: int) -> None:
    model = build(num_kv_heads=num_kv_heads)
    stepper = PackedStepper(model, 2)
    mine = fill(model, padding)
    theirs = fill(model, padding)

    for step in range(10):
        tokens = torch.tensor([step * 7 % 97, step * 5 % 97])
        with torch.no_grad():
            wanted = model(tokens[:, None], cache=theirs)[:, -1]
        torch.testing.assert_close(stepper.step(tokens, mine), wanted, atol=2e-4, rtol=1e-4)

    assert mine.length == theirs.length == 16
    torch.testing.assert_close(
        mine.keys[2][:, :, :16], theirs.keys[2][:, :, :16], atol=2e-4, rtol=1e-4
    )


@pytest.mark.parametrize("padding", [None, [0, 4]], ids=["no padding", "padding"])
def test_several_tokens_at_once_are_read_as_the_model_reads_them(padding: list[int] | None) -> None:
    model = build()
    mine = fill(model, padding)
    theirs = fill(model, padding)
    tokens = torch.randint(0, 257, (2, 5), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = model(tokens, cache=theirs)

    torch.testing.assert_close(
        PackedStepper(model, 10).read(tokens, mine), wanted, atol=2e-4, rtol=1e-4
    )
    assert mine.length == theirs.length == 11
    torch.testing.assert_close(
        mine.values[2][:, :, :11], theirs.values[2][:, :, :11], atol=2e-4, rtol=1e-4
    )


def test_one_row_is_packed_for_as_many_rows_as_are_quickest_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weight = build().unembedding.detach()
    x = torch.ones(1, 32)
    wanted = torch.nn.functional.linear(x, weight)
    choices = (
        (1, packed_products.MANY_ROWS) if packed_products.serves_fewer_rows(torch.float32) else (1,)
    )
    assert packed_products.choose_num_rows(torch.float32) in choices
    for num_rows in choices:
        monkeypatch.setattr(
            packed_products, "choose_num_rows", lambda _, num_rows=num_rows: num_rows
        )
        torch.testing.assert_close(
            packed_products.PackedLinear(weight, 1)(x), wanted, atol=1e-5, rtol=1e-5
        )


def test_packed_steps_in_bfloat16_are_as_near_to_fp32_as_the_models() -> None:
    exact = build()
    model = build(torch.bfloat16)
    tokens = torch.tensor([5, 9])
    logits = PackedStepper(model, 2).step(tokens, fill(model))
    with torch.no_grad():
        wanted = exact(tokens[:, None], cache=fill(exact))[:, -1]
        plain = model(tokens[:, None], cache=fill(model))[:, -1]
    assert (logits - wanted).abs().mean() <= 1.5 * (plain - wanted).abs().mean()


@pytest.mark.skipif(
    not packed_products.is_half_available(), reason="this build of torch has no FBGEMM"
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_with_weights_in_fp16_are_nearer_to_fp32_than_bfloat16s(dtype: torch.dtype) -> None:
    model = build(dtype)
    exact = build(dtype).float()
    coarse = build(torch.bfloat16)
    exact.compute_dtype = torch.float32
    assert can_halve(model)
    stepper = PackedStepper(model, 2, in_half=True)
    tokens = torch.tensor([5, 9])

    for padding in (None, [0, 4]):
        with torch.no_grad():
            wanted = exact(tokens[:, None], cache=fill(exact, padding))[:, -1]
            rough = coarse(tokens[:, None], cache=fill(coarse, padding))[:, -1]
        found = stepper.step(tokens, fill(exact, padding))
        assert found.dtype == torch.float32
        assert (found - wanted).abs().mean() < (rough - wanted).abs().mean() / 8


@pytest.mark.skipif(
    not packed_products.is_half_available(), reason="this build of torch has no FBGEMM"
)
def test_a_row_in_fp16_is_the_same_whatever_the_batch() -> None:
    model = build()
    alone = HalfLinear(model.unembedding)(torch.ones(1, 32))
    together = HalfLinear(model.unembedding)(torch.ones(7, 32))
    torch.testing.assert_close(together, alone.expand(7, -1), atol=1e-5, rtol=1e-5)


def test_a_weight_beyond_fp16_is_not_cut_down() -> None:
    model = build()
    with torch.no_grad():
        model.unembedding[3, 3] = 1e6
    assert not can_halve(model)


def test_without_packing_the_plain_products_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    packed_logits = PackedStepper(model, 2).step(torch.tensor([1, 2]), fill(model))
    monkeypatch.setattr(packed_products, "PACKED_DTYPES", ())
    packed_products.is_packing_available.cache_clear()
    try:
        assert pack(model.unembedding, 1) is None
        plain = PackedStepper(model, 2).step(torch.tensor([1, 2]), fill(model))
    finally:
        packed_products.is_packing_available.cache_clear()
    torch.testing.assert_close(plain, packed_logits, atol=2e-4, rtol=1e-4)


def test_only_dense_models_in_their_compute_dtype_are_packed() -> None:
    model = build()
    assert can_step(model)
    model.compute_dtype = torch.bfloat16
    assert not can_step(model)
    mixture = Transformer(
        model.config.model_copy(
            update={"num_experts": 4, "num_active_experts": 2, "expert_ffn_dim": 16}
        )
    )
    assert not can_step(mixture)
