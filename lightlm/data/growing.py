"""Training tokens that are still being written: the first part of a text is here, and training
reads it while the later ones come.

Which window is sequence i stays a pure function of (seed, i), the text and the tokenizer. The first
epoch goes through the parts in their order, each with its windows shuffled; a part is a sample of
the whole text already. Later epochs shuffle the windows of all parts together. A run that resumes
waits for the same part at the same sequence.
"""

import functools
import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lightlm.data.permutation import permute_range
from lightlm.data.token_array import TokenArray
from lightlm.errors import DatasetError

POLL_SECONDS = 0.1
"""Seconds between two looks for a part that is not here yet."""

START_BLOCK = 256
"""Sequences whose places are found together: of many, some would be of a part that is not here."""


class GrowingTokens(TokenArray):
    """The ids of parts: of the `first` one, and of folders `later` that another process makes, in
    this order. `open_part` returns the ids of a folder; `find_error` why no more come, if so.
    """

    def __init__(
        self,
        first: TokenArray,
        later: Sequence[Path],
        open_part: Callable[[Path], TokenArray],
        find_error: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._hold(list(first.view(0, len(first))))
        self._later = later
        self._open_part = open_part
        self._find_error = find_error
        self._part_starts = [0, len(first)]
        self._lock = threading.Lock()
        self._is_closed = False
        self._find_order = functools.lru_cache(maxsize=64)(self._make_order)

    def find_starts(self, first: int, number: int, *, context_length: int, seed: int) -> np.ndarray:
        """Return where the sequences from `first` on start, (number,) int64, as soon as the parts
        that they are of are here.

        Raises:
            DatasetError: a part does not come.
        """
        starts = np.empty(number, dtype=np.int64)
        done = 0
        while done < number:
            epoch, part, index, count = self._locate(first + done, context_length)
            end = min(number, done + count - index)
            windows, key = self._find_order(epoch, part, context_length, seed)
            places = permute_range(index, index + end - done, count, key).astype(np.int64)
            starts[done:end] = windows(places)
            done = end
        return starts

    def close(self) -> None:
        """Wait for nothing more."""
        self._is_closed = True

    def _locate(self, sequence: int, context_length: int) -> tuple[int, int, int, int]:
        """Return a sequence's epoch, its part in the first one (0 in later ones), and which it is
        of how many that are shuffled together.
        """
        before = 0
        for part in range(1 + len(self._later)):
            count = self._count(part, context_length)
            if sequence < before + count:
                return 0, part, sequence - before, count
            before += count
        epoch, index = divmod(sequence, before)
        return epoch, 0, index, before

    def _make_order(
        self, epoch: int, part: int, context_length: int, seed: int
    ) -> tuple[Callable[[np.ndarray], np.ndarray], bytes]:
        """Return what gives the starts of windows by their numbers before they are shuffled, and
        the key of the shuffle.
        """
        parts = [part] if epoch == 0 else list(range(1 + len(self._later)))
        counts = [self._count(one, context_length) for one in parts]
        ends = np.cumsum(counts)
        keys = [hashlib.sha256(f"{seed}:{epoch}:{one}".encode()).digest() for one in parts]
        # Each epoch cuts a part at another offset.
        firsts = np.array(
            [
                self._part_starts[one]
                + int.from_bytes(key[:8], "big") % (self._length(one) - count * context_length)
                for one, count, key in zip(parts, counts, keys, strict=True)
            ]
        )

        def find(windows: np.ndarray) -> np.ndarray:
            places = np.searchsorted(ends, windows, side="right")
            own = windows - (ends[places] - np.array(counts)[places])
            return firsts[places] + own * context_length

        return find, keys[0][8:]

    def _count(self, part: int, context_length: int) -> int:
        """Return how many windows a part has; wait for it."""
        self._wait_for(part)
        return max(1, self._length(part) // context_length - 1)

    def _length(self, part: int) -> int:
        return self._part_starts[part + 1] - self._part_starts[part]

    def _wait_for(self, part: int) -> None:
        if len(self._part_starts) >= part + 2:
            return
        with self._lock:
            while len(self._part_starts) < part + 2:
                folder = self._later[len(self._part_starts) - 2]
                if folder.exists():
                    self._append(self._open_part(folder))
                elif self._is_closed:
                    raise DatasetError(f"training ended before {folder.name} was tokenized")
                elif (error := self._find_error()) is not None:
                    raise DatasetError(f"the rest of the text was not tokenized: {error}")
                else:
                    time.sleep(POLL_SECONDS)

    def _append(self, tokens: TokenArray) -> None:
        pieces = [*self._maps, *tokens.view(0, len(tokens))]
        self._hold(pieces)
        self._part_starts.append(len(self))
