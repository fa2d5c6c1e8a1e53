import functools

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightlm.model.accounting import (
    _kept_by_layer,
    _kept_by_matmul,
    count_matrix_parameters,
    count_parameters,
    flops_per_token,
    training_memory_bytes,
)

PARTITIONED = "aot_eager_decomp_partition"
"""torch.compile's backend that splits forward and backward as inductor does, and runs them in eager
torch.
"""


def test_the_counted_parameters_are_those_of_the_built_model(build, variant):
    model = build(**variant)
    assert count_parameters(model.config) == sum(weight.numel() for weight in model.parameters())


def test_idle_experts_are_not_multiplied(build):
    experts = {"num_experts": 4, "expert_ffn_dim": 24}
    one = build(**experts, num_active_experts=1).config
    two = build(**experts, num_active_experts=2).config
    expert = 3 * one.model_dim * one.expert_ffn_dim * one.num_layers
    assert count_parameters(two) == count_parameters(one)
    assert count_matrix_parameters(two) - count_matrix_parameters(one) == expert


@pytest.mark.parametrize(
    "change", [{}, {"num_kv_heads": 2}, {"head_dim": 12}, {"tie_embeddings": True}]
)
def test_the_forward_flops_are_those_that_torch_counts_less_the_masked_half_of_attention(
    build, change
):
    model = build("matmul", **change)
    config = model.config
    length = 32
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, length, dtype=torch.int64))
    masked_half = 2 * config.num_layers * config.num_heads * config.head_dim * length * length
    counted = counter.get_total_flops() - masked_half
    assert flops_per_token(config, length, training=False) * length == counted


def test_training_costs_three_forward_passes(build):
    config = build().config
    assert flops_per_token(config) == 3 * flops_per_token(
        config, config.context_length, training=False
    )


def test_training_memory_holds_at_least_weights_gradients_and_moments(build, variant):
    config = build(**variant).config
    assert training_memory_bytes(config, 1, "adamw") > 16 * count_parameters(config)
    assert training_memory_bytes(config, 1, "muon") <= training_memory_bytes(config, 1, "adamw")
    assert training_memory_bytes(config, 2, "muon") > training_memory_bytes(config, 1, "muon")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kernel", ["matmul", "sdpa"])
@pytest.mark.parametrize(
    "experts", [{}, {"num_experts": 4, "num_active_experts": 2, "expert_ffn_dim": 96}]
)
@pytest.mark.parametrize("is_compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_a_layer_keeps_is_what_torch_keeps_for_its_backward_pass(
    build, kernel, dtype, experts, is_compiled, monkeypatch
):
    kept = []
    for num_layers in (1, 2):
        model = build(
            kernel,
            num_layers=num_layers,
            model_dim=64,
            head_dim=16,
            ffn_dim=192,
            context_length=64,
            **experts,
        )
        model.compute_dtype = dtype
        if is_compiled:  # what is kept is decided before inductor writes code
            torch._dynamo.reset()
            monkeypatch.setattr(
                nn.Module,
                "compile",
                functools.partialmethod(nn.Module.compile, backend=PARTITIONED),
            )
            model.compile_layers()
        own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        found = {}

        def keep(tensor, model=model, own=own, found=found):
            storage = tensor.untyped_storage()
            # A weight's copy in the compute dtype is counted with the weights; what else has its
            # shape is small.
            if storage.data_ptr() not in own and not is_copy_of_weight(model, tensor):
                found[storage.data_ptr()] = (storage.nbytes(), tensor)
            return tensor

        tokens = torch.zeros(8, 64, dtype=torch.int64)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.train().compute_loss(tokens, tokens)
        kept.append(sum(size for size, _ in found.values()))

    size = torch.finfo(dtype).bits // 8
    counted = _kept_by_layer(model.config, size, "cpu", is_compiled)
    counted += _kept_by_matmul(model.config, size, is_compiled) if kernel == "matmul" else 0
    assert 8 * 64 * counted == pytest.approx(kept[1] - kept[0], rel=0.1)


def is_copy_of_weight(model, tensor):
    shapes = {tuple(weight.shape) for weight in model.parameters()}
    return any(
        shape in shapes
        for shape in (tuple(tensor.shape), tuple(tensor.mT.shape) if tensor.dim() > 1 else ())
    )
