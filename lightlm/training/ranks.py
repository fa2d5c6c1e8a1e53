"""The ranks of a training run: they agree on progress, the end, saving, and the mean of gradients.

Every rank computes the same decisions from the same numbers. What depends on a clock or a signal is
exchanged before each step. A run of one process has nothing to exchange.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, distributed

from lightlm.training.stop_criterion import StopCriterion

BUCKET_BYTES = 1 << 26
"""Bytes of gradients averaged in one call: large for the network, small next to the model."""


MEMORY_KILL = 137
"""Exit code, as a shell reports it, of a process that the system killed for its memory."""


class OutOfMemoryElsewhere(torch.OutOfMemoryError):
    """Another rank ran out of memory in this step: all take a smaller micro-batch."""


class Ranks:
    """All processes of a run, seen from one of them; by itself, the only one."""

    rank = 0
    size = 1
    is_sharded = False
    """Whether each holds its rows of every weight only."""

    @property
    def is_first(self) -> bool:
        """Whether this one writes and speaks."""
        return self.rank == 0

    def follow(
        self, criterion: StopCriterion, should_stop: Callable[[], bool]
    ) -> tuple[StopCriterion, Callable[[], bool]]:
        """Return criterion and stop as all ranks agree on them."""
        return criterion, should_stop

    def lead(self, *decisions: bool) -> tuple[bool, ...]:
        """Return rank 0's decisions."""
        return decisions

    def any(self, value: bool) -> bool:
        """Return whether `value` holds on any rank."""
        return value

    def average(self, loss: Tensor, parameters: Sequence[Tensor]) -> None:
        """Replace loss and gradients, in place, by their means over the ranks."""

    def measure_norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return the L2 norm of all gradients; `gradients` are those of this rank."""
        norms = torch._foreach_norm(list(gradients))  # pyright: ignore[reportPrivateImportUsage]
        return torch.linalg.vector_norm(torch.stack(norms))

    def divide(self, stack: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Return `compute` of a stack (n, ...) that all ranks hold; each does its share
        of the n.
        """
        return compute(stack)

    def shrink(self) -> None:
        """Tell the other ranks that memory ran out here, so that all take a smaller micro-batch."""


ALONE = Ranks()


class ProcessRanks(Ranks):
    """The ranks of an initialized process group; decisions use gloo: no GPU waits for them."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size
        group = distributed.new_group(backend="gloo")
        assert isinstance(group, distributed.ProcessGroup)  # every rank is in it
        self._control = group

    def follow(
        self, criterion: StopCriterion, should_stop: Callable[[], bool]
    ) -> tuple[StopCriterion, Callable[[], bool]]:
        """Return a criterion that all ranks agree on; stopping is part of it."""
        return AgreedCriterion(criterion, should_stop, self._agree), lambda: False

    def _agree(self, is_over: bool, progress: float) -> tuple[bool, float]:
        values = torch.tensor(
            [float(is_over), progress if self.is_first else 0.0], dtype=torch.float64
        )
        distributed.all_reduce(values, group=self._control)
        return bool(values[0] > 0), float(values[1])

    def lead(self, *decisions: bool) -> tuple[bool, ...]:
        """Return rank 0's decisions."""
        values = torch.tensor(decisions, dtype=torch.uint8)
        distributed.broadcast(values, 0, group=self._control)
        return tuple(bool(value) for value in values)

    def any(self, value: bool) -> bool:
        """Return whether `value` holds on any rank."""
        found = torch.tensor([int(value)])
        distributed.all_reduce(found, distributed.ReduceOp.MAX, group=self._control)
        return bool(found.item())

    def average(self, loss: Tensor, parameters: Sequence[Tensor]) -> None:
        """Replace loss and gradients, in place, by their means over the ranks, in buckets of one
        dtype.

        Raises:
            OutOfMemoryElsewhere: another rank has none, and says so by `any(True)` instead.
        """
        if self.any(False):
            raise OutOfMemoryElsewhere
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for bucket in cut_buckets([loss.view(1), *gradients]):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            distributed.all_reduce(flat)
            flat /= self.size
            for tensor, mean in zip(
                bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True
            ):
                tensor.copy_(mean.view_as(tensor))

    def divide(self, stack: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Return `compute` of a stack (n, ...) that all ranks hold; each does its share
        of the n.
        """
        share = -(-len(stack) // self.size)
        mine = stack.new_zeros(share, *stack.shape[1:])
        part = stack[self.rank * share : (self.rank + 1) * share]
        if len(part):
            mine[: len(part)] = compute(part)
        whole = stack.new_empty(self.size * share, *stack.shape[1:])
        distributed.all_gather_into_tensor(whole, mine)
        return whole[: len(stack)]

    def shrink(self) -> None:
        """Tell the other ranks that memory ran out here, so that all take a smaller micro-batch."""
        self.any(True)


class ShardedRanks(ProcessRanks):
    """The ranks of a sharded model: each holds its rows; backward averages gradients."""

    is_sharded = True

    def average(self, loss: Tensor, parameters: Sequence[Tensor]) -> None:
        """Average the loss over the ranks, in place; the gradients are means already."""
        distributed.all_reduce(loss)
        loss /= self.size

    def measure_norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return the L2 norm of all gradients; `gradients` are this rank's rows."""
        square = super().measure_norm(gradients) ** 2
        distributed.all_reduce(square)
        return square.sqrt()

    def shrink(self) -> None:
        """End this process as a memory kill does: the others wait inside the layer that this one
        did not reach.

        All ranks end then, and the supervisor goes on from the newest checkpoint with half the
        micro-batch.
        """
        print("memory ran out on a rank of a sharded model; all end", file=sys.stderr, flush=True)  # noqa: T201
        os._exit(MEMORY_KILL)


def cut_buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield runs of tensors of one dtype and at most about BUCKET_BYTES."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and (tensor.dtype != bucket[0].dtype or size >= BUCKET_BYTES):
            yield bucket
            bucket = []
            size = 0
        bucket.append(tensor)
        size += tensor.nbytes
    if bucket:
        yield bucket


class AgreedCriterion:
    """A stop criterion with the same answers on every rank: over when it is over, or stopped, on
    any; progress is rank 0's.

    One small exchange before each step, in `allows`.
    """

    def __init__(
        self,
        criterion: StopCriterion,
        should_stop: Callable[[], bool],
        agree: Callable[[bool, float], tuple[bool, float]],
    ) -> None:
        self._criterion = criterion
        self._should_stop = should_stop
        self._agree = agree
        self._progress = 0.0

    def allows(self, step: int) -> bool:
        """Return whether every rank goes on."""
        is_over = self._should_stop() or not self._criterion.allows(step)
        is_over, self._progress = self._agree(is_over, self._criterion.progress(step))
        return not is_over

    def progress(self, step: int) -> float:
        """Return rank 0's fraction of the budget, as last agreed on."""
        return self._progress

    def record_step(self, seconds: float) -> None:
        """Record how long a step took here."""
        self._criterion.record_step(seconds)
