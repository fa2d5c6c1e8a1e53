"""The mixture of experts of a layer, in Qwen3-MoE's layout, with its load-balance loss.

Owns routing and the grouped computation of the experts: no loop over experts, no wait for the device.
"""

import torch
from torch import Tensor, nn

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
        raise NotImplementedError
