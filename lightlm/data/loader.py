"""ThreadedDataLoader: reader threads fill a bounded queue of batches from memory-mapped shards.

Owns the order of the data: which window of the text is sequence i is a pure function of (seed, i), whatever the
threads, the ranks or the micro-batches; so there is no loader state to save.
"""

import functools
import hashlib
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightlm.data.shards import TokenArray
from lightlm.errors import DatasetError

ROUNDS = 4
"""Of the Feistel network; four make a permutation that no statistical test of ours tells from a random one."""

POLL_SECONDS = 0.2


class Batch(NamedTuple):
    """Token ids (B, T) and the ids that follow each, (B, T); int64."""

    inputs: Tensor
    targets: Tensor


def count_windows(num_tokens: int, context_length: int) -> int:
    """Return how many windows of context_length + 1 tokens fit side by side, one token of overlap, at any offset.

    Raises:
        DatasetError: not even one.
    """
    count = (num_tokens - context_length) // context_length
    if count < 1 and num_tokens >= context_length + 1:
        return 1
    if count < 1:
        raise DatasetError(
            f"the text has {num_tokens:,} tokens, a sequence needs {context_length + 1:,}; give more text, or "
            f"model.context_length at most {max(8, num_tokens - 1)}"
        )
    return count


def window_start(sequence_index: int, *, num_tokens: int, context_length: int, seed: int) -> int:
    """Return where in the text sequence `sequence_index` starts; its epoch's windows are a shuffled partition.

    Each epoch cuts the text at another offset, so that a repeated text is not repeated in the same windows.
    """
    count = count_windows(num_tokens, context_length)
    epoch, index = divmod(sequence_index, count)
    key = _epoch_key(seed, epoch)
    slack = num_tokens - 1 - count * context_length
    offset = int.from_bytes(key[:8], "big") % (slack + 1)
    return offset + permute(index, count, key[8:]) * context_length


@functools.lru_cache(maxsize=8)
def _epoch_key(seed: int, epoch: int) -> bytes:
    return hashlib.sha256(f"{seed}:{epoch}".encode()).digest()


def permute(index: int, size: int, key: bytes) -> int:
    """Return where `index` goes in a permutation of range(size) that `key` chooses; O(1) in time and memory.

    A Feistel network over the next even number of bits; results outside the range are permuted again.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for round_number in range(ROUNDS):
            left, right = right, left ^ (_mix(right, round_number, key) & mask)
        index = left << half | right
        if index < size:
            return index


def _mix(value: int, round_number: int, key: bytes) -> int:
    start = 4 * round_number
    state = (value * 0x9E3779B1 + int.from_bytes(key[start : start + 4], "big")) & 0xFFFFFFFF
    state = ((state ^ state >> 16) * 0x85EBCA6B) & 0xFFFFFFFF
    state = ((state ^ state >> 13) * 0xC2B2AE35) & 0xFFFFFFFF
    return state ^ state >> 16


class ThreadedDataLoader:
    """Yields batches of `batch_size` sequences in the order of steps, for ever, from `start_step` on.

    With `world_size` ranks, each gets its share of the same global batch of `batch_size` sequences.
    A reader's error is raised to the consumer. Close it, or use it as a context manager.
    """

    def __init__(
        self,
        tokens: TokenArray | np.ndarray,
        *,
        context_length: int,
        batch_size: int,
        seed: int,
        start_step: int = 0,
        num_threads: int = 2,
        queue_size: int = 8,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
    ) -> None:
        if batch_size % world_size:
            raise ValueError(f"batch_size {batch_size} is not a multiple of world_size {world_size}")
        count_windows(len(tokens), context_length)  # too little text is refused here, not in a thread
        self._tokens = tokens
        self._context_length = context_length
        self._batch_size = batch_size
        self._seed = seed
        self._rank, self._world_size = rank, world_size
        self._pin_memory = pin_memory
        self._queue_size = queue_size
        self._ready: dict[int, Batch] = {}
        self._next_read = self._next_given = start_step
        self._error: BaseException | None = None
        self._is_closed = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._read, name=f"reader-{index}", daemon=True) for index in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()

    def read_batch(self, step: int) -> Batch:
        """Return the batch of a step, read now; a pure function of the step."""
        share = self._batch_size // self._world_size
        first = step * self._batch_size + self._rank * share
        length = self._context_length
        rows = np.empty((share, length + 1), dtype=np.int64)
        for row in range(share):
            start = window_start(first + row, num_tokens=len(self._tokens), context_length=length, seed=self._seed)
            rows[row] = self._tokens[start : start + length + 1]
        block = torch.from_numpy(rows)
        inputs, targets = block[:, :-1].contiguous(), block[:, 1:].contiguous()
        if self._pin_memory:
            inputs, targets = inputs.pin_memory(), targets.pin_memory()
        return Batch(inputs, targets)

    def __iter__(self) -> Iterator[Batch]:
        """Return itself."""
        return self

    def __next__(self) -> Batch:
        """Return the next step's batch; wait for it if it is not read yet.

        Raises:
            Exception: whatever a reader met.
        """
        with self._changed:
            while self._next_given not in self._ready:
                if self._error is not None:
                    raise self._error
                if self._is_closed:
                    raise StopIteration
                self._changed.wait(POLL_SECONDS)
            batch = self._ready.pop(self._next_given)
            self._next_given += 1
            self._changed.notify_all()
            return batch

    def close(self) -> None:
        """Stop the readers and wait for them."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> "ThreadedDataLoader":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _read(self) -> None:
        while True:
            with self._changed:
                while not self._is_closed and self._next_read - self._next_given >= self._queue_size:
                    self._changed.wait(POLL_SECONDS)
                if self._is_closed or self._error is not None:
                    return
                step = self._next_read
                self._next_read += 1
            try:
                batch = self.read_batch(step)
            except BaseException as error:  # noqa: BLE001  (carried over to the consumer)
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._ready[step] = batch
                self._changed.notify_all()
