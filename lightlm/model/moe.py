"""The mixture of experts of a layer, in Qwen3-MoE's layout, with its load-balance loss.

Owns routing and the grouped computation of the experts: one product for all of them, no wait for
the device. Source: transformers, models/qwen3_moe/modeling_qwen3_moe.py (softmax in fp32, chosen
weights renormalised).
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightlm.model.config import ModelConfig

Multiply = Callable[[Tensor, Tensor, Tensor], Tensor]

GROUPED_ALIGNMENT_BYTES = 16
"""What the grouped product wants each row's bytes to be a multiple of."""

ROWS_STEP = 64
"""On a CPU in bf16, an expert's rows are filled up to a multiple of it, fewer to a power of two.

oneDNN builds a kernel a shape and keeps it, and each step sends another number of rows to each
expert: 0.6 GB of kernels where these few shapes take 0.09 (8 experts of 256 x 352, 4,096 rows), and
a quarter more time (torch 2.13).
"""


class MixtureOfExperts(nn.Module):
    """Routes each position to `num_active_experts` SwiGLU experts: (B, T, model_dim) to
    the same.
    """

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

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mixed experts' output, (B, T, model_dim), and the balance loss, a scalar."""
        active = self.config.num_active_experts
        rows = x.flatten(0, 1)  # (N, D)
        # of shape (N, E)
        probabilities = functional.linear(rows, self.router.to(x.dtype)).float().softmax(-1)
        weights, chosen = probabilities.topk(active, dim=-1)  # (N, K)
        weights = (weights / weights.sum(-1, keepdim=True)).to(x.dtype)
        order = chosen.flatten().argsort(stable=True)  # choices by expert, (N K)
        counts = torch.zeros(self.config.num_experts, dtype=torch.int64, device=x.device)
        # bincount would wait for the device
        counts.scatter_add_(0, chosen.flatten(), torch.ones_like(order))
        computed = self.apply_experts(rows[order // active], counts)
        # Back in the choices' order by a gather: an index_add would sum in another order each time
        # on a GPU.
        computed = computed[order.argsort()].view(*weights.shape, -1)  # (N, K, D)
        mixed = (computed * weights.unsqueeze(-1)).sum(1)

        return mixed.view_as(x), balance_loss(probabilities, counts)

    def apply_experts(self, rows: Tensor, counts: Tensor) -> Tensor:
        """Return each expert's SwiGLU of its rows: `rows` (M, D) by expert, `counts` (E)
        of them.
        """
        gate, up = self.multiply(rows, self.gate_up.to(rows.dtype), counts).chunk(2, dim=-1)
        return self.multiply(functional.silu(gate) * up, self.down.to(rows.dtype), counts)

    def keep_from_compiler(self) -> None:
        """Leave the grouped products to eager torch when the rest is compiled.

        torch 2.13's compiler refuses them in fp32 ("Expected inputs of BF16 type"), which eager
        torch computes.
        """
        self.multiply = hide_multiply_grouped()


def multiply_grouped(rows: Tensor, matrices: Tensor, counts: Tensor) -> Tensor:
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


def balance_loss(probabilities: Tensor, counts: Tensor) -> Tensor:
    """Return E * sum over experts of (choices a position x mean probability): `num_active_experts`
    when balanced.

    `probabilities` (N, E) are the router's, `counts` (E) how often each expert was chosen.
    Source: transformers, load_balancing_loss_func of models/qwen3_moe, for one layer.
    """
    num_rows, num_experts = probabilities.shape
    share = counts.to(probabilities.dtype) / num_rows
    return num_experts * (share * probabilities.mean(0)).sum()
