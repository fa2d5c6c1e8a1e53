"""The adapter of one matrix: a product of two thin ones, added to what the matrix gives."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class LowRank(nn.Module):
    """scale * high @ low, for a matrix (out, in): low (rank, in), high (out, rank)."""

    def __init__(self, weight: Tensor, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        rows, columns = weight.shape
        rank = min(rank, rows, columns)
        low = torch.randn(rank, columns, generator=generator) * columns**-0.5
        self.scale = scale
        self.low = nn.Parameter(low.to(weight.device))
        self.high = nn.Parameter(torch.zeros(rows, rank, device=weight.device))

    def forward(self, x: Tensor) -> Tensor:
        """Return what the adapter adds for x (..., in), (..., out)."""
        thin = functional.linear(x, self.low.to(x.dtype))
        return functional.linear(thin, self.high.to(x.dtype)) * self.scale

    def product(self) -> Tensor:
        """Return the matrix that it stands for, (out, in)."""
        return self.scale * self.high @ self.low


def project(module: nn.Module, name: str, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x times a module's matrix, and what its adapter adds, if it has one."""
    result = functional.linear(x, getattr(module, name).to(x.dtype), bias)
    adapters = module.adapters
    return result if adapters is None else result + adapters[name](x)  # pyright: ignore
