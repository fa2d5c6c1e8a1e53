"""The mixture of experts of a layer, in Qwen3-MoE's layout, with its load-balance loss.

One grouped product computes all experts, without a wait for the device. Source: transformers,
models/qwen3_moe/modeling_qwen3_moe.py (softmax in fp32, chosen weights renormalized).
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightlm.model.config import ModelConfig
from lightlm.model.tensors import BTM, NE, NM, E, Scalar

Multiply = Callable[[Tensor, Tensor, Tensor], Tensor]

GROUPED_ALIGNMENT_BYTES = 16
"""Bytes that each row of a grouped product has to be a multiple of."""

ROWS_STEP = 64
"""Rows of an expert are padded to a multiple of it on a CPU in bf16, fewer to a power of two.

oneDNN compiles and caches a kernel per shape, and each step sends another number of rows to each
expert: 0.6 GB of kernels instead of 0.09 (8 experts of 256 x 352, 4,096 rows), and a quarter more
time (torch 2.13).
"""


class MixtureOfExperts(nn.Module):
    """Routes each position to `num_active_experts` SwiGLU experts."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        experts = config.num_experts
        dim = config.model_dim
        inner = config.expert_ffn_dim
        self.router = nn.Parameter(torch.empty(experts, dim))
        self.gate_up = nn.Parameter(torch.empty(experts, 2 * inner, dim))
        self.down = nn.Parameter(torch.empty(experts, dim, inner))
        self.multiply: Multiply = multiply_grouped

    def forward(self, x: BTM) -> tuple[BTM, Scalar]:
        """Return the mixed experts' output and the balance loss."""
        active = self.config.num_active_experts
        rows = x.flatten(0, 1)  # NM
        routed = functional.linear(rows, self.router.to(x.dtype))  # NE
        probabilities = routed.float().softmax(-1)
        weights, chosen = probabilities.topk(active, dim=-1)  # (N, active)
        weights = (weights / weights.sum(-1, keepdim=True)).to(x.dtype)
        order = chosen.flatten().argsort(stable=True)  # choices by expert, (N active,)
        counts = torch.zeros(self.config.num_experts, dtype=torch.int64, device=x.device)
        # bincount would wait for the device
        counts.scatter_add_(0, chosen.flatten(), torch.ones_like(order))
        computed = self.apply_experts(rows[order // active], counts)
        # Back in the choices' order by a gather: an index_add would sum in another order each time
        # on a GPU.
        computed = computed[order.argsort()].view(*weights.shape, -1)  # (N, active, M)
        mixed = (computed * weights.unsqueeze(-1)).sum(1)

        return mixed.view_as(x), balance_loss(probabilities, counts)

    def apply_experts(self, rows: NM, counts: E) -> NM:
        """Return the SwiGLU of rows that are sorted by expert, `counts` of each."""
        gate, up = self.multiply(rows, self.gate_up.to(rows.dtype), counts).chunk(2, dim=-1)
        return self.multiply(functional.silu(gate) * up, self.down.to(rows.dtype), counts)

    def keep_from_compiler(self) -> None:
        """Leave the grouped products to eager torch when the rest is compiled.

        torch 2.13's compiler refuses them in fp32 ("Expected inputs of BF16 type"), which eager
        torch computes.
        """
        self.multiply = hide_multiply_grouped()


def multiply_grouped(rows: Tensor, matrices: Tensor, counts: E) -> Tensor:
    """Return (M, O): of rows (M, I) the first counts[0] by matrices[0], and so on; matrices are (E,
    O, I).
    """
    builds_kernels = rows.device.type == "cpu" and rows.dtype == torch.bfloat16  # see ROWS_STEP
    size = rows.element_size()
    is_aligned = all(width * size % GROUPED_ALIGNMENT_BYTES == 0 for width in matrices.shape[1:])

    if is_aligned and not builds_kernels and hasattr(functional, "grouped_mm"):
        return functional.grouped_mm(
            rows, matrices.transpose(-1, -2), offs=counts.cumsum(0).to(torch.int32)
        )

    # Also before torch 2.10, and for odd widths. The counts are waited for, which costs nothing on
    # a CPU.
    groups = zip(rows.split(counts.tolist()), matrices.unbind(0), strict=True)
    return torch.cat(
        [functional.linear(_fill_up(group), matrix)[: len(group)] for group, matrix in groups]
    )


def _fill_up(group: Tensor) -> Tensor:
    count = len(group)
    wanted = (
        1 << (count - 1).bit_length()
        if 0 < count < ROWS_STEP
        else -(-count // ROWS_STEP) * ROWS_STEP
    )
    return functional.pad(group, (0, 0, 0, wanted - count))


@functools.cache
def hide_multiply_grouped() -> Multiply:
    """Return `multiply_grouped` for the compiler to pass by; one object, which the code that layers
    share expects.
    """
    hidden: Any = torch.compiler.disable(multiply_grouped)
    return hidden


def balance_loss(probabilities: NE, counts: E) -> Scalar:
    """Return E * sum over experts of (choices per position x mean probability).

    It is `num_active_experts` when balanced. `probabilities` are the router's, `counts` how often
    each expert was chosen.
    Source: transformers, load_balancing_loss_func of models/qwen3_moe, for one layer.
    """
    num_rows, num_experts = probabilities.shape
    share = counts.to(probabilities.dtype) / num_rows
    return num_experts * (share * probabilities.mean(0)).sum()
