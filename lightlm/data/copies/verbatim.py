"""The longest piece of some texts that stands word for word in documents, by hashes of windows."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

WINDOW_BYTES = 40
"""Bytes of the shortest copy that is looked for: some seven words."""

FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Base of the hashes modulo 2^64; odd, so that it has an inverse."""

INVERSE = np.uint64(pow(int(FACTOR), -1, 1 << 64))

PIECE_BYTES = 4_000_000
"""Bytes that are hashed at a time, 32 bytes of memory each."""


class Copy(NamedTuple):
    """The longest copy that was found, b"" if there is none, and the bytes it was looked for in."""

    text: bytes
    num_read: int


def find_longest_copy(texts: Sequence[bytes], documents: Iterable[bytes], most_bytes: int) -> Copy:
    """Return the longest piece of `texts`, of WINDOW_BYTES at least, that a document holds.

    Documents are read up to `most_bytes` of them.
    """
    wanted = np.unique(np.concatenate([np.empty(0, np.uint64), *map(hash_windows, texts)]))
    longest, num_read = b"", 0
    for document in documents:
        if num_read >= most_bytes:
            break
        num_read += len(document)
        for start in range(0, len(document), PIECE_BYTES):
            # A copy across two pieces counts in the longer part.
            piece = document[start : start + PIECE_BYTES + WINDOW_BYTES]
            longest = max(longest, _find_in(piece, wanted, texts, len(longest)), key=len)
    return Copy(longest, num_read)


def hash_windows(text: bytes) -> np.ndarray:
    """Return the hash of each window of WINDOW_BYTES bytes, uint64; empty where there is none."""
    values = np.frombuffer(text, dtype=np.uint8).astype(np.uint64) + np.uint64(1)
    if len(values) < WINDOW_BYTES:
        return np.empty(0, np.uint64)

    # The sum of value[i] * factor^i over a window, divided by the power at which it begins.
    products = values * _list_powers(FACTOR, len(values))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(products)])
    inverses = _list_powers(INVERSE, len(values) - WINDOW_BYTES + 1)
    return (sums[WINDOW_BYTES:] - sums[:-WINDOW_BYTES]) * inverses


def _list_powers(base: np.uint64, number: int) -> np.ndarray:
    """Return the powers 0 to number - 1 of `base` modulo 2^64, (number,) uint64."""
    powers = np.full(number, base)
    powers[0] = 1
    return np.multiply.accumulate(powers)


def _find_in(piece: bytes, wanted: np.ndarray, texts: Sequence[bytes], least: int) -> bytes:
    """Return the longest piece of a text that `piece` holds, if it is longer than `least`."""
    hits = np.flatnonzero(np.isin(hash_windows(piece), wanted))
    if not len(hits):
        return b""

    # No copy is longer than a text: the rest of a long run, such as a line of dashes, repeats it.
    most = 2 * max(map(len, texts))
    longest = b""
    starts = hits[np.concatenate([[True], np.diff(hits) > 1])]
    ends = hits[np.concatenate([np.diff(hits) > 1, [True]])] + WINDOW_BYTES
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if end - start <= max(least, len(longest)):
            continue
        longest = max(longest, _cut_to_copy(piece[start : min(end, start + most)], texts), key=len)
    return longest


def _cut_to_copy(candidate: bytes, texts: Sequence[bytes]) -> bytes:
    """Return the longest piece of a run of hits that stands in one text as a whole: windows of
    several texts may follow each other.
    """
    longest = b""
    for start in range(len(candidate) - WINDOW_BYTES + 1):
        end = start + max(WINDOW_BYTES, len(longest) + 1)
        while end <= len(candidate) and any(candidate[start:end] in text for text in texts):
            longest = candidate[start:end]
            end += 1
    return longest
