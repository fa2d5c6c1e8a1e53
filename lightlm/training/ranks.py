"""The ranks of a training run: they agree on progress, the end, saving, and the mean of gradients.

Every rank computes the same decisions from the same numbers. What depends on a clock or a signal is
exchanged before each step. A run of one process has nothing to exchange.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NoReturn

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from lightlm.model.transformer import Transformer
from lightlm.training.stop_criterion import StopCriterion

ComputeLoss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""Losses of tokens and targets, as `Transformer.compute_loss` gives them."""

MEMORY_KILL = 137
"""Exit code, as a shell reports it, of a process that the system killed for its memory."""


class OutOfMemoryElsewhere(torch.OutOfMemoryError):
    """Another rank ran out of memory in this step: all take a smaller micro-batch."""


class Ranks:
    """All processes of a run, seen from one of them; by itself, the only one."""

    rank = 0
    size = 1
    leader = 0
    is_sharded = False
    """Whether each holds its rows of every weight only."""
    keeps_gradients = False
    """Whether gradients keep their memory between two steps."""

    @property
    def is_first(self) -> bool:
        """Whether this one writes and speaks."""
        return self.rank == self.leader

    def agree(
        self, criterion: StopCriterion, should_stop: Callable[[], bool], step: int
    ) -> float | None:
        """Return the leading rank's progress; None if training is over on any rank."""
        is_over = should_stop() or not criterion.allows(step)
        return None if is_over else criterion.progress(step)

    def lead(self, *decisions: bool) -> tuple[bool, ...]:
        """Return the leading rank's decisions."""
        return decisions

    def any(self, value: bool) -> bool:
        """Return whether `value` holds on any rank."""
        return value

    @contextmanager
    def accumulate(
        self, model: Transformer, shape: torch.Size, *, is_last: bool
    ) -> Iterator[ComputeLoss]:
        """Give what computes the loss of a micro-batch; after the last, gradients are exchanged.

        `shape` is that of the largest micro-batch of the step.
        """
        yield model.compute_loss

    def average(self, loss: Tensor, parameters: Sequence[Tensor]) -> None:
        """Replace the loss, and gradients that are not exchanged yet, by their means, in place."""

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
    """The ranks of the process group; decisions travel by gloo: no GPU waits for them."""

    def __init__(self, rank: int, size: int, leader: int = 0) -> None:
        self.rank = rank
        self.size = size
        self.leader = leader

    def agree(
        self, criterion: StopCriterion, should_stop: Callable[[], bool], step: int
    ) -> float | None:
        """Return the leading rank's progress; None if training is over by its clock, or any rank
        was asked to stop. Monotonic clocks of machines differ.
        """
        is_over = should_stop() or (self.is_first and not criterion.allows(step))
        progress = criterion.progress(step) if self.is_first else 0.0
        values = torch.tensor([float(is_over), progress], dtype=torch.float64)
        distributed.all_reduce(values)
        return None if values[0] > 0 else float(values[1])

    def lead(self, *decisions: bool) -> tuple[bool, ...]:
        """Return the leading rank's decisions."""
        values = torch.tensor(decisions, dtype=torch.uint8)
        distributed.broadcast(values, self.leader)
        return tuple(bool(value) for value in values)

    def any(self, value: bool) -> bool:
        """Return whether `value` holds on any rank."""
        found = torch.tensor([int(value)])
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return bool(found.item())


class ReplicatedRanks(ProcessRanks):
    """The ranks of a model that each holds whole: DistributedDataParallel averages gradients."""

    keeps_gradients = True  # they are views of the buckets

    def __init__(self, rank: int, size: int, leader: int = 0) -> None:
        super().__init__(rank, size, leader)
        self._replica: DistributedDataParallel | None = None
        self._shape = torch.Size()
        self._tried: set[torch.Size] = set()
        """Shapes of micro-batches that memory holds on every rank."""

    @contextmanager
    def accumulate(
        self, model: Transformer, shape: torch.Size, *, is_last: bool
    ) -> Iterator[ComputeLoss]:
        """Give what computes the loss; the backward pass of the last micro-batch averages gradients
        while it computes.

        The first step of a shape averages afterwards: where memory does not hold it on some rank,
        no other waits inside its backward pass.
        """
        if self._replica is None:
            self._replica = DistributedDataParallel(LossModule(model), gradient_as_bucket_view=True)
        self._shape = shape
        is_exchanged = is_last and shape in self._tried
        with nullcontext() if is_exchanged else self._replica.no_sync():
            yield self._replica

    def average(self, loss: Tensor, parameters: Sequence[Tensor]) -> None:
        """Replace the loss, and gradients that are not exchanged yet, by their means, in place.

        Raises:
            OutOfMemoryElsewhere: another rank has none, and says so by `any(True)` instead.
        """
        means = [loss]
        if self._shape not in self._tried:
            if self.any(False):
                raise OutOfMemoryElsewhere
            self._tried.add(self._shape)
            means += [parameter.grad for parameter in parameters if parameter.grad is not None]
        for tensor in means:
            distributed.all_reduce(tensor)
            tensor /= self.size

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
        """Tell the other ranks that memory ran out here, so that all take a smaller micro-batch.

        After a step of that shape they wait inside the backward pass: then all end.
        """
        if self._shape in self._tried:
            end_for_memory()
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
        """End this process: the others wait inside the layer that this one did not reach."""
        end_for_memory()


class LossModule(nn.Module):
    """A model whose forward pass gives the losses, since DistributedDataParallel wraps that."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the losses, as `Transformer.compute_loss`."""
        return self.model.compute_loss(tokens, targets)


def end_for_memory() -> NoReturn:
    """End this process as a memory kill does; all ranks end then, and training resumes from the
    newest checkpoint with half the micro-batch.
    """
    print("memory ran out on a rank that others wait for; all end", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(MEMORY_KILL)
