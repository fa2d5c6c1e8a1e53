"""The gated feed-forward of a layer: silu(gate) * up, projected down (SwiGLU, as in Qwen3)."""

import torch
from torch import nn
from torch.nn import functional

from lightlm.model.config import ModelConfig
from lightlm.model.tensors import BTM


class FeedForward(nn.Module):
    """Position-wise SwiGLU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_up = nn.Parameter(torch.empty(2 * config.ffn_dim, config.model_dim))
        self.down = nn.Parameter(torch.empty(config.model_dim, config.ffn_dim))

    def forward(self, x: BTM) -> BTM:
        """Return the feed-forward of each position."""
        gate, up = functional.linear(x, self.gate_up.to(x.dtype)).chunk(2, dim=-1)
        return functional.linear(functional.silu(gate) * up, self.down.to(x.dtype))
