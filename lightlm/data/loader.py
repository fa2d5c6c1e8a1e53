"""ThreadedDataLoader: reader threads fill a bounded queue of batches from memory-mapped shards.

Which window of the text is sequence i is a pure function of (seed, i), whatever the threads, the
ranks or the micro-batches; so there is no loader state to save.
"""

import functools
import hashlib
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightlm.data.blocks import BlockTokens
from lightlm.data.growing import START_BLOCK as GROWING_BLOCK
from lightlm.data.growing import GrowingTokens
from lightlm.data.permutation import permute_range
from lightlm.data.shards import SHARE_BITS, SHORTEST_CONTEXT, MixedTokens
from lightlm.data.token_array import TokenArray
from lightlm.errors import DatasetError

POLL_SECONDS = 0.2

READ_TOKENS = 1 << 18
"""At most so many are read in one turn of a reader, of as many steps as fit: a turn costs some 50
us, whatever its size (16 KB of ids take 5 us).
"""

START_BLOCK = 4096
"""Sequences whose places are computed together, and kept for the steps that follow; a fourth of it:
twice the time.
"""


class Batch(NamedTuple):
    """Token ids (B, T) and the ids that follow each, (B, T). Both may be views of one block.

    The loader's are as narrow as on disk: memory bounds reading, and int64 is four times as much of
    it.
    """

    inputs: Tensor
    targets: Tensor

    def widen(self) -> "Batch":
        """Return the ids as int64, which torch's indexing wants; the batch's own where they are."""
        return Batch(self.inputs.long(), self.targets.long())

    def halve_context(self) -> "Batch":
        """Return the same tokens as twice as many sequences of half the length; T is even."""
        return Batch(*(part.reshape(-1, part.shape[1] // 2) for part in self))

    def rows(self, start: int, stop: int) -> "Batch":
        """Return the sequences from `start` to before `stop`."""
        return Batch(self.inputs[start:stop], self.targets[start:stop])


def count_windows(num_tokens: int, context_length: int) -> int:
    """Return how many windows of context_length + 1 tokens fit side by side, one token of overlap,
    at any offset.

    Raises:
        DatasetError: not even one.
    """
    count = (num_tokens - context_length) // context_length
    if count < 1 and num_tokens >= context_length + 1:
        return 1
    if count < 1:
        shorter = f", or model.context_length at most {num_tokens - 1}"
        raise DatasetError(
            f"the text has {num_tokens:,} tokens, a sequence needs {context_length + 1:,}; give "
            f"more text{shorter if num_tokens > SHORTEST_CONTEXT else ''}"
        )
    return count


def window_starts(
    first: int, number: int, *, num_tokens: int, context_length: int, seed: int
) -> np.ndarray:
    """Return where in the text the sequences from `first` on start, (number,) int64; an epoch's
    windows are a shuffled partition.

    Each epoch cuts the text at another offset, so that a repeated text is not repeated in the same
    windows.
    """
    count = count_windows(num_tokens, context_length)
    slack = num_tokens - 1 - count * context_length
    starts = np.empty(number, dtype=np.int64)
    done = 0

    while done < number:
        epoch, index = divmod(first + done, count)
        end = min(number, done + count - index)
        offset, key = _epoch_cut(seed, epoch, slack)
        places = permute_range(index, index + end - done, count, key)
        starts[done:end] = offset + places.astype(np.int64) * context_length
        done = end

    return starts


def mixed_starts(
    first: int, number: int, tokens: MixedTokens, *, context_length: int, seed: int
) -> np.ndarray:
    """Return where the sequences from `first` on start in texts that are mixed, (number,) int64.

    A text with the share s has n s of the first n sequences, rounded, evenly spread; these are its
    own sequences in their order, as if it were alone.
    """
    starts = np.empty(number, dtype=np.int64)
    rows = np.arange(number)
    counted = np.arange(first, first + number + 1, dtype=np.int64)

    for part in reversed(tokens.parts):
        # How many of the sequences before each are the text's own.
        before = (counted * part.share) >> SHARE_BITS
        is_own = np.diff(before) == 1
        starts[rows[is_own]] = part.start + window_starts(
            int(before[0]),
            int(before[-1] - before[0]),
            num_tokens=part.num_tokens,
            context_length=context_length,
            seed=seed,
        )
        rows = rows[~is_own]
        counted = counted[0] - before[0] + np.arange(len(rows) + 1)

    return starts


@functools.lru_cache(maxsize=8)
def _epoch_cut(seed: int, epoch: int, slack: int) -> tuple[int, bytes]:
    """Return the offset of an epoch's first window, of `slack` tokens that are left over, and its
    permutation's key.
    """
    key = hashlib.sha256(f"{seed}:{epoch}".encode()).digest()
    return int.from_bytes(key[:8], "big") % (slack + 1), key[8:]


class ThreadedDataLoader:
    """Yields batches of `batch_size` sequences in the order of steps, for ever, from `start_step`
    on.

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
            raise ValueError(
                f"batch_size {batch_size} is not a multiple of world_size {world_size}"
            )

        # too little text is refused here, not in a thread
        parts = tokens.parts if isinstance(tokens, MixedTokens) else ()
        for num_tokens in [part.num_tokens for part in parts] or [len(tokens)]:
            count_windows(num_tokens, context_length)

        self._start_block = GROWING_BLOCK if isinstance(tokens, GrowingTokens) else START_BLOCK

        def find_starts(block: int) -> np.ndarray:
            number = self._start_block
            first = block * number
            order = {"context_length": context_length, "seed": seed}
            if isinstance(tokens, MixedTokens):
                return mixed_starts(first, number, tokens, **order)
            if isinstance(tokens, BlockTokens | GrowingTokens):
                return tokens.find_starts(first, number, **order)
            return window_starts(first, number, num_tokens=len(tokens), **order)

        self._tokens = TokenArray.join([tokens]) if isinstance(tokens, np.ndarray) else tokens
        self._context_length = context_length
        self._read_starts = functools.lru_cache(maxsize=2 + num_threads)(find_starts)

        self._batch_size = batch_size
        self._rank = rank
        self._world_size = world_size
        self._pin_memory = pin_memory
        self._queue_size = queue_size
        self._least_read = max(1, queue_size // 2)
        self._most_read = max(1, READ_TOKENS // (batch_size // world_size * context_length))
        self._ready: dict[int, Batch] = {}
        self._next_read = self._next_given = start_step
        self._error: BaseException | None = None
        self._is_closed = False
        lock = threading.Lock()
        self._arrived, self._has_room = threading.Condition(lock), threading.Condition(lock)
        self._threads = [
            threading.Thread(target=self._read, name=f"reader-{index}", daemon=True)
            for index in range(num_threads)
        ]

        for thread in self._threads:
            thread.start()

    def read_batch(self, step: int) -> Batch:
        """Return the batch of a step, read now; a pure function of the step."""
        return self._read_batches(step, 1)[0]

    def _read_batches(self, first_step: int, count: int) -> list[Batch]:
        """Return the batches of `count` steps."""
        share = self._batch_size // self._world_size
        firsts = [
            step * self._batch_size + self._rank * share
            for step in range(first_step, first_step + count)
        ]
        starts = np.concatenate([self._find_starts(first, share) for first in firsts])
        ids = torch.from_numpy(self._tokens.take_windows(starts, self._context_length + 1))
        batches = [Batch(block[:, :-1], block[:, 1:]) for block in ids.split(share)]
        if self._pin_memory:
            return [Batch(*(part.contiguous().pin_memory() for part in batch)) for batch in batches]
        return batches

    def _find_starts(self, first: int, number: int) -> np.ndarray:
        """Return where the sequences from `first` on start, of the blocks that hold them."""
        size = self._start_block
        blocks = range(first // size, (first + number - 1) // size + 1)
        starts = np.concatenate([self._read_starts(block) for block in blocks])
        return starts[first - blocks[0] * size :][:number]

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """Return the next step's batch; wait for it if it is not read yet.

        Raises:
            Exception: whatever a reader met.
        """
        with self._arrived:
            while self._next_given not in self._ready:
                if self._error is not None:
                    raise self._error
                if self._is_closed:
                    raise StopIteration
                self._arrived.wait(POLL_SECONDS)
            batch = self._ready.pop(self._next_given)
            self._next_given += 1
            if self._count_room() >= self._least_read:
                self._has_room.notify()
            return batch

    def close(self) -> None:
        """Stop the readers and wait for them."""
        with self._arrived:
            self._is_closed = True
            self._arrived.notify_all()
            self._has_room.notify_all()
        if isinstance(self._tokens, BlockTokens | GrowingTokens):
            self._tokens.close()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> "ThreadedDataLoader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _count_room(self) -> int:
        """Return how many steps may be read ahead now; the lock is held."""
        return self._queue_size - (self._next_read - self._next_given)

    def _read(self) -> None:
        while True:
            with self._has_room:
                while not self._is_closed and self._count_room() < self._least_read:
                    self._has_room.wait(POLL_SECONDS)
                if self._is_closed or self._error is not None:
                    return
                first = self._next_read
                count = min(self._count_room(), self._most_read)
                self._next_read += count
            try:
                batches = self._read_batches(first, count)
            except BaseException as error:  # noqa: BLE001  (carried over to the consumer)
                with self._arrived:
                    self._error = error
                    self._arrived.notify_all()
                return
            with self._arrived:
                self._ready.update(zip(range(first, first + count), batches, strict=True))
                self._arrived.notify_all()
