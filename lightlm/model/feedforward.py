"""The gated feed-forward of a layer: silu(gate) * up, projected down (SwiGLU, as in Qwen3)."""

import torch
from torch import nn
from torch.nn import functional

from lightlm.model.config import ModelConfig
from lightlm.model.low_rank import project
from lightlm.model.tensors import BTM


class FeedForward(nn.Module):
    """Position-wise SwiGLU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.adapters: nn.ModuleDict | None = None
        self.gate_up = nn.Parameter(torch.empty(2 * config.ffn_dim, config.model_dim))
        self.down = nn.Parameter(torch.empty(config.model_dim, config.ffn_dim))

    def forward(self, x: BTM) -> BTM:
        """Return the feed-forward of each position."""
        gate, up = project(self, "gate_up", x).chunk(2, dim=-1)
        return project(self, "down", functional.silu(gate) * up)
