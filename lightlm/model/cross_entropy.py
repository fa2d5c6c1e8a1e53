"""Cross-entropy straight from hidden states, without holding all logits at once.

A chunk of rows at a time goes through the head matrix and gives its nats and, in training, its
gradients, so that memory is chunk * vocab_size however long the batch is. Source of the gradients
in the forward pass: Liger-Kernel's fused linear cross-entropy.
"""

from typing import Any

import torch
from torch import Tensor

from lightlm.model.accounting import CHUNK_LOGITS, choose_chunk_rows
from lightlm.model.tensors import NM, VM, N, Scalar

CACHED_FLOATS = CHUNK_LOGITS // 2
"""Logits in float32 that a CPU holds at a time, 4 MB: twice as many took 1.6 to 2.1 times as long
to score with 4,096 ids (AMD EPYC, two cores).
"""


def _choose_rows(hidden: NM, vocab_size: int, most: int) -> int:
    is_gpu = hidden.device.type != "cpu"
    return choose_chunk_rows(hidden.shape[0], vocab_size, most, is_gpu=is_gpu)


def _choose_scored_rows(hidden: NM, vocab_size: int) -> int:
    most = CACHED_FLOATS if hidden.device.type == "cpu" else CHUNK_LOGITS
    return _choose_rows(hidden, vocab_size, most)


class LinearCrossEntropy(torch.autograd.Function):
    """Mean nats of targets under softmax(hidden @ weight^T), with both gradients."""

    @staticmethod
    def forward(ctx: Any, hidden: NM, weight: VM, targets: N) -> Scalar:  # noqa: D102
        num_rows = hidden.shape[0]
        head = weight.to(hidden.dtype)
        rows = _choose_rows(hidden, weight.shape[0], CHUNK_LOGITS)
        hidden_gradient = torch.empty_like(hidden)
        # A frozen head has no gradient, and its product is a fifth of a small model's step.
        weight_gradient = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)

        for start in range(0, num_rows, rows):
            chunk = hidden[start : start + rows]
            wanted = targets[start : start + rows, None]
            # One pass in the compute dtype (sums inside are fp32): 5x less memory traffic than
            # log_softmax in fp32. A bf16 probability is off by 2^-9 at most, 0.002 nats per token.
            gradient = torch.softmax(chunk @ head.T, dim=-1)  # (rows, V)
            likely = gradient.gather(1, wanted)
            # A probability that underflows to zero costs 87 nats: one odd token must not make the
            # step infinite.
            total -= likely.float().clamp_min(torch.finfo(torch.float32).tiny).log().sum()
            gradient.scatter_(1, wanted, likely - 1.0)
            torch.matmul(gradient, head, out=hidden_gradient[start : start + rows])
            if weight_gradient is not None:
                weight_gradient += gradient.T @ chunk

        ctx.save_for_backward(hidden_gradient, weight_gradient)
        ctx.num_rows = num_rows
        return total / num_rows

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[NM, VM | None, None]:  # noqa: D102
        hidden_gradient, weight_gradient = ctx.saved_tensors
        scale = gradients[0] / ctx.num_rows
        return (
            hidden_gradient.mul_(scale.to(hidden_gradient.dtype)),
            None if weight_gradient is None else weight_gradient.mul_(scale),
            None,
        )


def mean_nats(hidden: NM, weight: VM, targets: N) -> Scalar:
    """Return the mean nats of targets in fp32, differentiable in hidden and weight."""
    return LinearCrossEntropy.apply(hidden, weight, targets)  # pyright: ignore[reportReturnType]


def each_nats(hidden: NM, weight: VM, targets: N) -> N:
    """Return the nats of every target in fp32; for scoring, without gradients."""
    head = weight.to(hidden.dtype)
    rows = _choose_scored_rows(hidden, weight.shape[0])
    nats = [
        torch.nn.functional.cross_entropy(
            (hidden[start : start + rows] @ head.T).float(),
            targets[start : start + rows],
            reduction="none",
        )
        for start in range(0, hidden.shape[0], rows)
    ]
    return torch.cat(nats)


def describe_targets(hidden: NM, weight: VM, targets: N) -> Tensor:
    """Return (N, 3) in fp32: the nats of every target, the entropy of the distribution that gave
    them, in nats, and the natural logarithm of its greatest probability.
    """
    head = weight.to(hidden.dtype)
    rows = _choose_scored_rows(hidden, weight.shape[0])
    described = []
    for start in range(0, hidden.shape[0], rows):
        logits = (hidden[start : start + rows] @ head.T).float()
        wanted = logits.gather(1, targets[start : start + rows, None])[:, 0]
        most = logits.amax(-1)
        logits -= most[:, None]
        weights = logits.exp()
        sums = weights.sum(-1)
        # The entropy is log(sum) - sum(weight * logit) / sum; 0 * -inf does not occur.
        mean = torch.linalg.vecdot(weights, logits) / sums
        log_sums = sums.log()
        described.append(torch.stack([log_sums - (wanted - most), log_sums - mean, -log_sums], -1))
    return torch.cat(described)
