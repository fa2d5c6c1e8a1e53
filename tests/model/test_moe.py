import pytest
import torch
from torch.nn import functional
from transformers import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import (
    Qwen3MoeSparseMoeBlock,
    load_balancing_loss_func,
)

from lightlm.model import moe
from lightlm.model.config import ModelConfig
from lightlm.model.moe import MixtureOfExperts, balance_loss, multiply_grouped


def build_layer(model_dim=32, expert_ffn_dim=24, num_experts=4, num_active_experts=2):
    config = ModelConfig(
        vocab_size=300,
        num_layers=1,
        model_dim=model_dim,
        num_heads=2,
        num_kv_heads=2,
        head_dim=8,
        ffn_dim=48,
        context_length=32,
        num_experts=num_experts,
        num_active_experts=num_active_experts,
        expert_ffn_dim=expert_ffn_dim,
    )

    layer = MixtureOfExperts(config)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * 0.3)

    return layer


def build_reference(layer):
    config = layer.config
    reference = Qwen3MoeSparseMoeBlock(
        Qwen3MoeConfig(
            hidden_size=config.model_dim,
            moe_intermediate_size=config.expert_ffn_dim,
            num_experts=config.num_experts,
            num_experts_per_tok=config.num_active_experts,
            norm_topk_prob=True,
            experts_implementation="eager",
        )
    )

    with torch.no_grad():
        reference.gate.weight.copy_(layer.router)
        reference.experts.gate_up_proj.copy_(layer.gate_up)
        reference.experts.down_proj.copy_(layer.down)

    return reference


@pytest.mark.parametrize(
    "dims", [(32, 24), (30, 18)], ids=["grouped product", "widths that it does not take"]
)
@pytest.mark.parametrize("num_active_experts", [1, 2, 4])
def test_output_and_gradients_are_those_of_transformers(dims, num_active_experts):
    layer = build_layer(*dims, num_active_experts=num_active_experts)
    reference = build_reference(layer)
    x = torch.randn(2, 9, dims[0], generator=torch.Generator().manual_seed(1), requires_grad=True)
    pull = torch.randn(2, 9, dims[0], generator=torch.Generator().manual_seed(2))
    mixed, _ = layer(x)
    wanted = reference(x)
    torch.testing.assert_close(mixed, wanted, atol=1e-5, rtol=1e-4)
    found_gradients = torch.autograd.grad((mixed * pull).sum(), (x, layer.gate_up, layer.down))
    experts = reference.experts
    gradients = torch.autograd.grad(
        (wanted * pull).sum(), (x, experts.gate_up_proj, experts.down_proj)
    )

    torch.testing.assert_close(found_gradients, gradients, atol=1e-4, rtol=1e-4)


def test_the_grouped_product_and_the_product_by_groups_agree(monkeypatch):
    rows = torch.randn(10, 16)
    matrices = torch.randn(4, 8, 16)
    counts = torch.tensor([3, 0, 6, 1])
    grouped = multiply_grouped(rows, matrices, counts)
    monkeypatch.setattr(moe, "GROUPED_ALIGNMENT_BYTES", 1 << 30)
    torch.testing.assert_close(multiply_grouped(rows, matrices, counts), grouped)


@pytest.mark.parametrize("counts", [[3, 0, 66, 1], [64, 128, 0, 6], [0, 0, 0, 1]])
def test_rows_filled_up_to_few_sizes_get_the_product_by_groups(counts):
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(sum(counts), 16, generator=draw).bfloat16().requires_grad_()
    matrices = torch.randn(4, 8, 16, generator=draw).bfloat16().requires_grad_()
    groups = zip(rows.split(counts), matrices, strict=True)
    wanted = torch.cat([functional.linear(group, matrix) for group, matrix in groups])
    found = multiply_grouped(rows, matrices, torch.tensor(counts))
    torch.testing.assert_close(found, wanted)
    pull = torch.randn(wanted.shape, generator=draw).bfloat16()

    for mine, right in zip(
        *(torch.autograd.grad(y, (rows, matrices), pull) for y in (found, wanted)), strict=True
    ):
        torch.testing.assert_close(mine, right)


def test_a_cpu_is_asked_for_products_of_few_sizes_in_bfloat16(monkeypatch):
    sizes = set()

    def watch(group, matrix, linear=functional.linear):
        sizes.add(len(group))
        return linear(group, matrix)

    monkeypatch.setattr(functional, "linear", watch)
    matrices = torch.zeros(2, 8, 16, dtype=torch.bfloat16)
    for count in range(301):
        multiply_grouped(
            torch.zeros(300, 16, dtype=torch.bfloat16), matrices, torch.tensor([count, 300 - count])
        )

    assert sizes == {0, 1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 320}


def test_bfloat16_is_computed_too():
    layer = build_layer()
    mixed, _ = layer(torch.randn(1, 5, 32).bfloat16())
    assert mixed.dtype == torch.bfloat16
    assert torch.isfinite(mixed).all()


def test_one_position_alone_gets_what_it_gets_among_others():
    layer = build_layer()
    x = torch.randn(1, 7, 32)
    torch.testing.assert_close(layer(x[:, 3:4])[0], layer(x)[0][:, 3:4])


def test_the_balance_loss_is_that_of_transformers():
    logits = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    probabilities = logits.softmax(-1)
    counts = torch.bincount(probabilities.topk(2).indices.flatten(), minlength=8)
    wanted = load_balancing_loss_func((logits,), num_experts=8, top_k=2)
    torch.testing.assert_close(balance_loss(probabilities, counts), wanted)


def test_the_balance_loss_is_the_number_of_active_experts_when_balanced_and_more_when_not():
    even = torch.full((4, 4), 0.25)
    assert float(balance_loss(even, torch.tensor([2, 2, 2, 2]))) == pytest.approx(2.0)
    skewed = torch.tensor([0.7, 0.1, 0.1, 0.1]).expand(4, 4)
    assert float(balance_loss(skewed, torch.tensor([4, 4, 0, 0]))) > 2.0


def test_the_balance_loss_pulls_on_the_router():
    layer = build_layer()
    _, loss = layer(torch.randn(1, 12, 32))
    (gradient,) = torch.autograd.grad(loss, (layer.router,))
    assert gradient.any()


@pytest.mark.parametrize(
    "dtype", [pytest.param(torch.float32, marks=pytest.mark.slow), torch.bfloat16]
)
def test_a_layer_kept_from_the_compiler_computes_the_same_inside_compiled_code(dtype):
    layer = build_layer()
    x = torch.randn(1, 6, 32).to(dtype)
    wanted, _ = layer(x)
    layer.keep_from_compiler()
    layer.compile(dynamic=False, backend="aot_eager")
    mixed, _ = layer(x)
    torch.testing.assert_close(mixed, wanted)
    mixed.float().sum().backward()
    assert layer.down.grad is not None
