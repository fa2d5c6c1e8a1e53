"""The mixture of experts of a layer, in Qwen3-MoE's layout, with its load-balance loss.

Owns routing and the grouped computation of the experts: no loop over experts, no wait for the device.
Source: transformers, models/qwen3_moe/modeling_qwen3_moe.py (router in fp32, chosen weights renormalised).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightlm.model.config import ModelConfig


class MixtureOfExperts(nn.Module):
    """Routes each position to `num_active_experts` SwiGLU experts: (B, T, model_dim) to the same."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        experts, dim, inner = config.num_experts, config.model_dim, config.expert_ffn_dim
        self.router = nn.Parameter(torch.empty(experts, dim))
        self.gate_up = nn.Parameter(torch.empty(experts, 2 * inner, dim))
        self.down = nn.Parameter(torch.empty(experts, dim, inner))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mixed experts' output, (B, T, model_dim), and the balance loss, a scalar."""
        config = self.config
        rows = x.flatten(0, 1)  # (N, D)
        probabilities = functional.linear(rows, self.router.to(x.dtype)).float().softmax(-1)  # (N, E)
        weights, chosen = probabilities.topk(config.num_active_experts, dim=-1)  # (N, K)
        weights = (weights / weights.sum(-1, keepdim=True)).to(x.dtype)
        order = chosen.flatten().argsort(stable=True)  # positions in expert order, (N K)
        counts = functional.one_hot(chosen.flatten(), config.num_experts).sum(0)  # (E)
        gathered = rows[order // config.num_active_experts]
        mixed = self.apply_experts(gathered, counts) * weights.flatten()[order, None]
        output = torch.zeros_like(rows).index_add(0, order // config.num_active_experts, mixed)
        return output.view_as(x), balance_loss(probabilities, counts, config.num_experts)

    def apply_experts(self, rows: Tensor, counts: Tensor) -> Tensor:
        """Return each expert's SwiGLU of its rows: `rows` (N, D) in expert order, `counts` (E) of them."""
        ends = counts.cumsum(0).to(torch.int32)
        gate_up = torch._grouped_mm(rows, self.gate_up.to(rows.dtype).transpose(-1, -2), offs=ends)
        gate, up = gate_up.chunk(2, dim=-1)
        inner = functional.silu(gate) * up
        return torch._grouped_mm(inner, self.down.to(rows.dtype).transpose(-1, -2), offs=ends)


def balance_loss(probabilities: Tensor, counts: Tensor, num_experts: int) -> Tensor:
    """Return num_experts * sum over experts of (share of choices x mean probability): num_active_experts at balance.

    `probabilities` (N, E) of the router, `counts` (E) of choices. Source: Switch Transformers, arXiv 2101.03961,
    equations 4 to 6, as transformers' load_balancing_loss_func sums it.
    """
    share = counts.to(probabilities.dtype) / probabilities.shape[0]
    return num_experts * (share * probabilities.mean(0)).sum()
