"""Muon: momentum whose update is made orthogonal, for matrices; batched over matrices of one shape.

Source: KellerJordan/Muon (Newton-Schulz coefficients, Nesterov momentum, scale by the aspect
ratio).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightlm.training.ranks import ALONE, Ranks

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic Newton-Schulz iteration, with the steepest slope at zero."""

ITERATIONS = 5


def orthogonalize(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the nearest semi-orthogonal matrices (n, rows, cols), computed in `dtype`.

    Singular values end between about 0.7 and 1.2, not at 1: Muon does not need more.
    """
    a, b, c = COEFFICIENTS
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.to(dtype)
    if is_tall:
        x = x.mT

    norms = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True, dtype=torch.float32).clamp_(
        min=1e-7
    )
    x = (x / norms.to(dtype)).contiguous()

    for _ in range(ITERATIONS):
        gram = torch.bmm(x, x.mT)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)

    return x.mT if is_tall else x


def scale_of(rows: int, cols: int) -> float:
    """Return the factor on an orthogonal update: a tall matrix moves by its outputs."""
    return max(1.0, rows / cols) ** 0.5


@dataclass(frozen=True)
class MatrixSlice:
    """One logical matrix (rows, cols): `slice` of a parameter that may hold several, stacked."""

    name: str
    view: Tensor
    gradient_of: Tensor
    start: int
    index: int | None

    def gradient(self) -> Tensor:
        """Return the gradient of this matrix, (rows, cols)."""
        gradient = self.gradient_of.grad
        assert gradient is not None  # every matrix takes part in every step
        if self.index is not None:
            gradient = gradient[self.index]
        return gradient[self.start : self.start + self.view.shape[0]]


class Muon:
    """Updates groups of equally shaped matrices; state is one momentum stack a group.

    Several ranks that hold the same weights divide the matrices of a group among them.
    """

    def __init__(self, slices: list[MatrixSlice], dtype: torch.dtype, ranks: Ranks = ALONE) -> None:
        self.dtype = dtype
        self.ranks = ranks
        self.groups: dict[tuple[int, int], list[MatrixSlice]] = {}
        for piece in slices:
            rows, cols = piece.view.shape
            self.groups.setdefault((max(rows, cols), min(rows, cols)), []).append(piece)
        self.momenta = {
            shape: torch.zeros(len(group), *shape, device=group[0].view.device)
            for shape, group in self.groups.items()
        }

    @torch.no_grad()
    def step(self, learning_rate: float, momentum: float, weight_decay: float) -> None:
        """Move every matrix by one orthogonal update of size `learning_rate`."""
        for shape, group in self.groups.items():
            buffer = self.momenta[shape]
            # Wide matrices are laid on their side, so that (d, f) and (f, d) share a batch.
            gradients = torch.stack(
                [g if g.shape == shape else g.T for g in (piece.gradient() for piece in group)]
            )
            buffer.lerp_(gradients, 1.0 - momentum)
            moves = gradients.lerp_(buffer, momentum).to(self.dtype)
            del gradients  # in fp32; a third of what this takes at its peak
            updates = self.ranks.divide(moves, lambda part: orthogonalize(part, self.dtype))
            for piece, update in zip(group, updates.unbind(), strict=True):
                rows, cols = piece.view.shape
                turned = update if update.shape == piece.view.shape else update.T
                if weight_decay:
                    piece.view.mul_(1.0 - learning_rate * weight_decay)
                piece.view.add_(
                    turned.to(piece.view.dtype), alpha=-learning_rate * scale_of(rows, cols)
                )

    def state_tensors(self) -> dict[str, Tensor]:
        """Return the momenta by name."""
        return {f"muon.{rows}x{cols}": buffer for (rows, cols), buffer in self.momenta.items()}
