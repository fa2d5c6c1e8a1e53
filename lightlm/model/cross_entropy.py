"""Cross-entropy straight from hidden states, without holding all logits at once.

A chunk of rows at a time goes through the head matrix and gives its nats and, in training, its
gradients, so that memory is chunk * vocab_size however long the batch is. Source of the gradients
in the forward pass: Liger-Kernel's fused linear cross-entropy.
"""

from typing import Any

import torch
from torch import Tensor

from lightlm.model.tensors import NM, VM, N, Scalar

CHUNK_LOGITS = 2 * 1024 * 1024
"""Logits held at a time: 4 MB in bfloat16, inside the last-level cache of the CPUs measured."""


def choose_chunk_rows(num_rows: int, vocab_size: int) -> int:
    """Return how many rows' logits are computed at a time."""
    return max(1, min(num_rows, CHUNK_LOGITS // vocab_size))


class LinearCrossEntropy(torch.autograd.Function):
    """Mean nats of targets under softmax(hidden @ weight^T), with both gradients."""

    @staticmethod
    def forward(ctx: Any, hidden: NM, weight: VM, targets: N) -> Scalar:  # noqa: D102
        num_rows = hidden.shape[0]
        head = weight.to(hidden.dtype)
        rows = choose_chunk_rows(num_rows, weight.shape[0])
        hidden_gradient = torch.empty_like(hidden)
        weight_gradient = torch.zeros_like(weight)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)

        for start in range(0, num_rows, rows):
            chunk = hidden[start : start + rows]
            wanted = targets[start : start + rows, None]
            # One pass in the compute dtype (sums inside are fp32): 5x less memory traffic than
            # log_softmax in fp32. A bf16 probability is off by 2^-9 at most, 0.002 nats a token.
            gradient = torch.softmax(chunk @ head.T, dim=-1)  # (rows, V)
            likely = gradient.gather(1, wanted)
            # A probability that underflows to zero costs 87 nats: one odd token must not make the
            # step infinite.
            total -= likely.float().clamp_min(torch.finfo(torch.float32).tiny).log().sum()
            gradient.scatter_(1, wanted, likely - 1.0)
            torch.matmul(gradient, head, out=hidden_gradient[start : start + rows])
            weight_gradient += gradient.T @ chunk

        ctx.save_for_backward(hidden_gradient, weight_gradient)
        ctx.num_rows = num_rows
        return total / num_rows

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[NM, VM, None]:  # noqa: D102
        hidden_gradient, weight_gradient = ctx.saved_tensors
        scale = gradients[0] / ctx.num_rows
        return (
            hidden_gradient.mul_(scale.to(hidden_gradient.dtype)),
            weight_gradient.mul_(scale),
            None,
        )


def mean_nats(hidden: NM, weight: VM, targets: N) -> Scalar:
    """Return the mean nats of targets in fp32, differentiable in hidden and weight."""
    return LinearCrossEntropy.apply(hidden, weight, targets)  # pyright: ignore[reportReturnType]


def each_nats(hidden: NM, weight: VM, targets: N) -> N:
    """Return the nats of every target in fp32; for scoring, without gradients."""
    head = weight.to(hidden.dtype)
    rows = choose_chunk_rows(hidden.shape[0], weight.shape[0])
    nats = [
        torch.nn.functional.cross_entropy(
            (hidden[start : start + rows] @ head.T).float(),
            targets[start : start + rows],
            reduction="none",
        )
        for start in range(0, hidden.shape[0], rows)
    ]
    return torch.cat(nats)
