"""Duplicates: documents that are met again while a subset is written, and near copies afterwards.

A document counts as met if an accepted one is equal but for its white space. Each accepted one
costs 8 bytes in a table of digests: of 10 million different documents one is taken for a copy by
chance with odds of 1 to 1,400.
"""

import hashlib
import re
import zlib
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lightlm.data.copies.leaks import NearCopies
from lightlm.data.copies.near_copies import find_near_copies

MOST_DIGESTS = 23_000_000
"""Documents that are remembered, in at most 270 MB; later ones of training are still compared with
these.
"""

_WHITE_SPACE = bytes.maketrans(b"\t\n\v\f\r\x1c\x1d\x1e\x1f", b" " * 9)
# A literal start of two letters makes each search faster than "  +" or one pattern for all blanks.
_BLANKS = re.compile(rb"   *")
_WIDE_BLANKS = re.compile(rb"\xc2[\x85\xa0]"), re.compile(rb"\xe2\x80[\x80-\x8a\xa8\xa9\xaf]")
_OTHER_WIDE_BLANKS = b"\xe1\x9a\x80", b"\xe2\x81\x9f", b"\xe3\x80\x80"


@dataclass
class CopyCounts:
    """Documents that were left out while writing, as each was a copy of one that had been accepted
    before.
    """

    exact: int = 0
    folded: int = 0
    """Equal but for white space."""
    leaks: int = 0
    """Those of both kinds, in training, whose first copy is held out."""


def fold_white_space(document: bytes) -> bytes:
    """Return a document of UTF-8 with each run of white space made one blank, and none
    at its ends.
    """
    if not document.isascii():
        for blanks in _WIDE_BLANKS:
            document = blanks.sub(b" ", document)
        for blank in _OTHER_WIDE_BLANKS:
            document = document.replace(blank, b" ")

    folded = document.translate(_WHITE_SPACE)
    if b"  " in folded:
        folded = _BLANKS.sub(b" ", folded)
    return folded.strip(b" ")


def digest_of(document: bytes) -> bytes:
    """Return a digest that is equal for documents that differ only in white space."""
    return hashlib.sha256(fold_white_space(document)).digest()


class DuplicateFinder:
    """Remembers the documents of both splits, so that none is written twice."""

    def __init__(self, *, near: bool = True) -> None:
        self.near = near
        self.counts = CopyCounts()
        self._digests = DigestTable()
        self._last: tuple[bytes, int] | None = None

    @property
    def is_full(self) -> bool:
        """Whether more documents were accepted than are remembered."""
        return len(self._digests) >= MOST_DIGESTS

    def is_copy(
        self, split: Literal["train", "validation"], document: bytes, digest: bytes | None = None
    ) -> bool:
        """Return whether a document is a copy of an accepted one, and count it if so.

        `digest` is `digest_of(document)`, where the caller has it already.
        """
        key = self._key(document, digest)
        found = self._digests.find(key)
        if found is None:
            return False
        if found & 0x7F == key & 0x7F:
            self.counts.exact += 1
        else:
            self.counts.folded += 1
        self.counts.leaks += split == "train" and bool(found & 0x80)
        return True

    def add(
        self, split: Literal["train", "validation"], document: bytes, digest: bytes | None = None
    ) -> None:
        """Remember a document that is written."""
        if split == "validation" or not self.is_full:
            self._digests.add(self._key(document, digest) | (0x80 if split == "validation" else 0))

    def find_near(self, folder: Path, *, max_seconds: float | None = None) -> NearCopies:
        """Return what to leave out of the documents in `folder` as near copies (nothing where
        `near` is off).
        """
        if self.near:
            return find_near_copies(folder, max_seconds=max_seconds)
        splits = ("validation", "train")
        sizes = {split: (folder / f"{split}.lengths").stat().st_size // 8 for split in splits}
        return NearCopies({split: np.zeros(size, dtype=bool) for split, size in sizes.items()})

    def _key(self, document: bytes, digest: bytes | None) -> int:
        """Return 56 bits of the folded digest, one that is free for the split, and 7 bits of the
        exact bytes.
        """
        if self._last is not None and self._last[0] is document:
            return self._last[1]
        digest = digest or digest_of(document)
        # The first eight bytes decide which documents are held out; these are others.
        key = int.from_bytes(digest[8:15], "big") << 8 | zlib.crc32(document) & 0x7F or 1 << 8
        self._last = (document, key)
        return key


class DigestTable:
    """A set of 64-bit keys, equal if their upper 56 bits are, at 8 bytes a slot; 11 to 23 bytes a
    key.

    Keys lie in the order of their values, each in the slot of its upper bits or in the next free
    one (linear probing), so that a larger table is made by one sort.
    """

    LOAD = 0.7
    SPILL = 4096

    def __init__(self) -> None:
        self._bits = 16
        self._slots = array("Q", bytes(8 * ((1 << self._bits) + self.SPILL)))
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def num_bytes(self) -> int:
        """Memory of the table."""
        return 8 * len(self._slots)

    def find(self, key: int) -> int | None:
        """Return the key that was added with the same upper 56 bits."""
        slots = self._slots
        place = key >> (64 - self._bits)
        wanted = key >> 8
        while slot := slots[place]:
            if slot >> 8 == wanted:
                return slot
            place += 1
        return None

    def add(self, key: int) -> None:
        """Add a key."""
        if self._size >= self.LOAD * (1 << self._bits):
            self._grow()

        slots = self._slots
        place = key >> (64 - self._bits)
        while slots[place]:
            place += 1

        if place >= len(slots) - 2:
            self._grow()
            self.add(key)
            return

        slots[place] = key
        self._size += 1

    def _grow(self) -> None:
        self._bits += 1
        keys = np.frombuffer(self._slots, dtype=np.uint64)
        keys = np.sort(keys[keys != 0])
        order = np.arange(len(keys))
        homes = (keys >> np.uint64(64 - self._bits)).astype(np.int64)
        places = np.maximum.accumulate(homes - order) + order
        slots = array("Q", bytes(8 * ((1 << self._bits) + self.SPILL)))
        np.frombuffer(slots, dtype=np.uint64)[places] = keys
        self._slots = slots
