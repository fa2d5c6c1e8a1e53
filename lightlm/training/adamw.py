"""AdamW (Loshchilov and Hutter, arXiv 1711.05101) by PyTorch's fused kernel, each weight at its own
rate.

torch.optim.AdamW imports torch._dynamo and SymPy with its first call: 2 s of a core before the
first step, in a run that has 18 or 72.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lightlm.training.sharding import local

EPSILON = 1e-10


class Moments(NamedTuple):
    """State of one weight, by torch.optim's names: number of steps, and the running averages."""

    step: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor


@dataclass
class Slot:
    """One weight with its highest rate, its weight decay, and its state from the first step on."""

    weight: Tensor
    peak: float
    weight_decay: float
    moments: Moments | None = None


class AdamW:
    """Updates the weights in `slots`, by name."""

    def __init__(self, betas: tuple[float, float]) -> None:
        self.slots: dict[str, Slot] = {}
        self._betas = betas

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Update each weight that has a gradient at `factor` of its highest rate."""
        for slot in self.slots.values():
            weight = slot.weight
            if weight.grad is None:
                continue
            if slot.moments is None:
                count = torch.zeros((), dtype=torch.float32, device=weight.device)
                slot.moments = Moments(count, torch.zeros_like(weight), torch.zeros_like(weight))
            moments = slot.moments
            moments.step.add_(1)
            torch._fused_adamw_(  # pyright: ignore[reportPrivateImportUsage]
                [local(weight)],
                [local(weight.grad)],
                [local(moments.exp_avg)],
                [local(moments.exp_avg_sq)],
                [],
                [moments.step],
                lr=slot.peak * factor,
                beta1=self._betas[0],
                beta2=self._betas[1],
                weight_decay=slot.weight_decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )
