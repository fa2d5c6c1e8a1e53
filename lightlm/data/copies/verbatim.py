"""The longest piece of some texts that stands word for word in documents, by hashes of windows."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

WINDOW_BYTES = 40
"""Bytes of the shortest copy that is looked for: some seven words."""

FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Base of the hashes modulo 2^64; odd, so that it has an inverse."""

INVERSE = np.uint64(pow(int(FACTOR), -1, 1 << 64))

PIECE_BYTES = 4_000_000
"""Bytes that are hashed at a time, some 40 bytes of memory each."""


class Copy(NamedTuple):
    """The longest copy that was found, b"" if there is none, and the bytes it was looked for in."""

    text: bytes
    num_read: int


class Hashed:
    """A text of which the hash of any window is known."""

    def __init__(self, text: bytes) -> None:
        values = np.frombuffer(text, dtype=np.uint8).astype(np.uint64) + np.uint64(1)
        products = values * _list_powers(FACTOR, len(values))
        self.text = text
        self._sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(products)])

    @cached_property
    def _inverses(self) -> np.ndarray:
        return _list_powers(INVERSE, len(self.text))

    def list_places(self, size: int) -> np.ndarray:
        """Return where a window of `size` bytes begins, int64; empty where there is none."""
        return np.arange(max(0, len(self.text) - size + 1))

    def hash_at(self, places: np.ndarray, size: int) -> np.ndarray:
        """Return the hash of each window of `size` bytes that begins at a place, uint64."""
        # The sum of value[i] * factor^i over a window, divided by the power at which it begins.
        return (self._sums[places + size] - self._sums[places]) * self._inverses[places]


class Wanted:
    """Texts whose windows are looked for."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        self.texts = texts
        self.longest = max(map(len, texts), default=0)
        self._hashed = [Hashed(text) for text in texts]
        self._hashes: dict[int, np.ndarray] = {}

    def find(self, piece: Hashed, places: np.ndarray, size: int) -> np.ndarray:
        """Return those places of `piece` where a window of `size` bytes begins that a text has."""
        if size not in self._hashes:
            found = [text.hash_at(text.list_places(size), size) for text in self._hashed]
            self._hashes[size] = np.unique(np.concatenate([np.empty(0, np.uint64), *found]))
        places = places[places <= len(piece.text) - size]
        return places[np.isin(piece.hash_at(places, size), self._hashes[size])]


def find_longest_copy(texts: Sequence[bytes], documents: Iterable[bytes], most_bytes: int) -> Copy:
    """Return the longest piece of `texts`, of WINDOW_BYTES at least, that a document holds.

    Documents are read up to `most_bytes` of them.
    """
    wanted = Wanted(texts)
    longest, num_read = b"", 0
    for document in documents:
        if num_read >= most_bytes:
            break
        document = document[: most_bytes - num_read]
        num_read += len(document)
        for start in range(0, len(document), PIECE_BYTES):
            # A copy that goes on beyond the piece is within it and what follows.
            piece = document[start : start + PIECE_BYTES + min(wanted.longest, PIECE_BYTES)]
            longest = _lengthen(longest, piece, wanted)
    return Copy(longest, num_read)


def _lengthen(longest: bytes, piece: bytes, wanted: Wanted) -> bytes:
    """Return the longest piece of a text that `piece` holds if it is longer than `longest`, and
    `longest` if not.
    """
    size = max(WINDOW_BYTES, len(longest) + 1)
    if min(len(piece), wanted.longest) < size:
        return longest
    hashed = Hashed(piece)
    places = wanted.find(hashed, hashed.list_places(size), size)
    if not len(places):
        return longest

    # Where a longer window begins, there a shorter one does, too.
    most = min(len(piece), wanted.longest)
    while size < most:
        middle = (size + most + 1) // 2
        found = wanted.find(hashed, places, middle)
        if len(found):
            size, places = middle, found
        else:
            most = middle - 1

    copy = piece[places[0] : places[0] + size]
    return copy if any(copy in text for text in wanted.texts) else longest  # equal hashes by chance


def _list_powers(base: np.uint64, number: int) -> np.ndarray:
    """Return the powers 0 to number - 1 of `base` modulo 2^64, (number,) uint64."""
    powers = np.full(number, base)
    powers[:1] = 1
    return np.multiply.accumulate(powers)
