"""Shingles: documents as hashes of runs of neighboring words, many documents at a time.

Letter case, punctuation and white space do not count. Letters of three and four bytes (Chinese,
Japanese, Thai ...) are words of their own, as these scripts set no blanks. All work is numpy's, at
some 100 MB/s a core.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

LEAST_WORDS = 20
"""Words from which a document is compared by runs of words; a shorter one is a copy if all are
equal.
"""

SHORT_WORDS = 5
"""Words from which a document is compared by its words; one of fewer ("Thanks a lot!") is a copy if
its text is equal.
"""

BLOCK_BYTES = 1 << 18
"""Bytes of text that are hashed at once; about ten arrays of it have to fit into a core's cache."""

_RANDOM = np.random.default_rng(20_261_130)
_LETTER_HASHES = _RANDOM.integers(0, 2**64, size=0x100, dtype=np.uint64)
_BASE = 0x9E37_79B9_7F4A_7C15
_INVERSE = pow(_BASE, -1, 2**64)
_MIXERS = (np.uint64(0xBF58_476D_1CE4_E5B9), np.uint64(0x94D0_49BB_1331_11EB))
_SEPARATOR = b"\0"

_LETTERS = {*range(ord("0"), ord("9") + 1), *range(ord("a"), ord("z") + 1), *range(0x80, 0x100)}
_IS_LETTER = bytes(byte in _LETTERS for byte in range(0x100))
_LEAST_OWN_WORD = 0xE0
"""First byte of letters of three and four bytes."""

_ASCII = bytes(range(0x80))
_CASELESS = bytes(range(0x80, 0xC3))
"""Bytes of signs without case, as C2 begins them; so does E2 80. Letters with case have others."""

_SCRATCH = threading.local()

# Signs among the letters of several bytes, as (first byte, least and largest second byte, length):
# Latin-1 signs, dashes and quotes, Chinese and Japanese punctuation.
_SIGNS = ((0xC2, 0x80, 0xBF, 2), (0xE2, 0x80, 0x81, 3), (0xE3, 0x80, 0x80, 3))


@dataclass(frozen=True)
class WordHashes:
    """Hashes of the words of several documents, one after the other."""

    hashes: np.ndarray
    starts: np.ndarray
    """Where each document's words start, and where the last one's end (int64)."""

    def shingles(self, words: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the hashes of all runs of `words` words inside a document, and where each
        document's start.
        """
        counts = np.maximum(np.diff(self.starts) - (words - 1), 0)
        starts = np.concatenate(([0], np.cumsum(counts)))
        if not starts[-1]:
            return np.empty(0, dtype=np.uint64), starts

        runs = self.hashes[: len(self.hashes) - words + 1].copy()
        for place in range(1, words):
            runs *= np.uint64(_BASE)
            runs += self.hashes[place : len(self.hashes) - words + 1 + place]

        is_inside = np.ones(len(runs), dtype=bool)
        for place in range(1, words):
            borders = self.starts[1:-1] - place
            is_inside[borders[(borders >= 0) & (borders < len(runs))]] = False

        return _mix(runs[is_inside]), starts

    def hash_short(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the documents of at least SHORT_WORDS, fewer than LEAST_WORDS words, and a hash of
        each one's.
        """
        counts = np.diff(self.starts)
        rows = np.flatnonzero((counts >= SHORT_WORDS) & (counts < LEAST_WORDS))
        starts = self.starts[rows]
        counts = counts[rows]
        keys = np.zeros(len(rows), dtype=np.uint64)
        for place in range(LEAST_WORDS - 1):
            goes_on = np.flatnonzero(counts > place)
            keys[goes_on] = keys[goes_on] * np.uint64(_BASE) + self.hashes[starts[goes_on] + place]
        return rows, _mix(keys)


def hash_words(documents: Sequence[bytes]) -> WordHashes:
    """Return the hashes of the words of documents of valid UTF-8."""
    text = _fold_case(documents)
    hashes: list[np.ndarray] = []
    borders: list[np.ndarray] = [np.zeros(1, dtype=np.int64)]
    num_words = 0
    for block in _cut_blocks(text):
        block_hashes, block_borders = _hash_block(block)
        hashes.append(block_hashes)
        borders.append(block_borders + num_words)
        num_words += len(block_hashes)
    borders.append(np.array([num_words]))
    return WordHashes(np.concatenate(hashes), np.concatenate(borders))


def _cut_blocks(text: bytes) -> Iterator[bytes]:
    """Yield the text in blocks that a core's cache holds, each cut between words if it has any end
    of one.
    """
    start = 0
    while len(text) - start > BLOCK_BYTES:
        stop = start + BLOCK_BYTES
        end = 1 + max(text.rfind(blank, start, stop) for blank in (b" ", b"\n", _SEPARATOR))
        if end <= start:
            end = stop
            while text[end] & 0xC0 == 0x80:
                end -= 1
        yield text[start:end]
        start = end
    yield text[start:]


def _hash_block(text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes of the words of a block, and how many stand before each border of
    documents.
    """
    letters = np.frombuffer(text, dtype=np.uint8)
    if not len(letters):
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    if not text.isascii():
        letters = _blank_signs(letters)

    is_letter = np.frombuffer(letters.tobytes().translate(_IS_LETTER), dtype=bool)
    is_start = is_letter.copy()
    is_start[1:] &= ~is_letter[:-1] | (letters[1:] >= _LEAST_OWN_WORD)
    starts = np.flatnonzero(is_start)
    is_end = is_letter.copy()
    is_end[:-1] &= ~is_letter[1:] | is_start[1:]
    ends = np.flatnonzero(is_end) + 1
    borders = np.searchsorted(starts, np.flatnonzero(letters == 0))

    return _hash_pieces(letters, starts, ends), borders


def _fold_case(documents: Sequence[bytes]) -> bytes:
    """Return the documents in lower case, separated by one NUL each."""
    folded = _SEPARATOR.join(map(_to_lower, documents))
    if folded.count(_SEPARATOR) != len(documents) - 1:
        folded = _SEPARATOR.join(
            _to_lower(document).replace(_SEPARATOR, b" ") for document in documents
        )
    return folded


def _to_lower(document: bytes) -> bytes:
    """Return a document in lower case; signs beyond ASCII, as curly quotes, need no look at each
    character.
    """
    if document.isascii():
        return document.lower()
    beyond = document.translate(None, _ASCII).replace(b"\xe2\x80", b"")
    if not beyond.translate(None, _CASELESS):
        return document.lower()
    return document.decode("utf-8", "replace").lower().encode("utf-8")


def _blank_signs(letters: np.ndarray) -> np.ndarray:
    letters = letters.copy()
    for first, least, largest, length in _SIGNS:
        places = np.flatnonzero(letters[: len(letters) - length + 1] == first)
        second = letters[places + 1]
        places = places[(second >= least) & (second <= largest)]
        for step in range(length):
            letters[places + step] = ord(" ")
    return letters


def _hash_pieces(letters: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return a hash of each piece: a polynomial of its bytes' hashes, by differences of running
    sums.
    """
    if not hasattr(_SCRATCH, "sums"):
        _SCRATCH.sums = np.empty(BLOCK_BYTES + 4, dtype=np.uint64)
    # New memory for each block would cost more than all sums; "clip" lets numpy write without
    # another copy.
    sums = np.take(_LETTER_HASHES, letters, out=_SCRATCH.sums[: len(letters)], mode="clip")
    sums *= _POWERS[: len(letters)]
    np.cumsum(sums, out=sums)
    totals = sums[ends - 1]
    totals -= np.where(starts > 0, sums[starts - 1], np.uint64(0))
    totals *= _INVERSE_POWERS[starts]
    return _mix(totals)


def _mix(values: np.ndarray) -> np.ndarray:
    """Return the values with every bit made to depend on all (SplitMix64's last steps),
    in place.
    """
    for mixer, shift in zip(_MIXERS, (30, 27), strict=True):
        values ^= values >> np.uint64(shift)
        values *= mixer
    values ^= values >> np.uint64(31)
    return values


def _list_powers(base: int, length: int) -> np.ndarray:
    """Return the first powers of a number modulo 2 ** 64."""
    powers = np.full(length, base, dtype=np.uint64)
    powers[0] = 1
    return np.cumprod(powers, dtype=np.uint64)


_POWERS = _list_powers(_BASE, BLOCK_BYTES + 4)
_INVERSE_POWERS = _list_powers(_INVERSE, BLOCK_BYTES + 4)
