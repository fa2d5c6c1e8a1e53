"""Duplicates: documents that are met again while a subset is written.

A document counts as met if an accepted one is equal but for its white space. Each accepted one
costs 11 to 23 bytes in a table of digests: of 10 million different documents one is taken for a
copy by chance with odds of 1 to 370,000.
"""

import hashlib
import re
from array import array

import numpy as np

MOST_DIGESTS = 23_000_000
"""Documents that are remembered, in at most 270 MB; later ones of training are still compared with
these.
"""

_WHITE_SPACE = bytes.maketrans(b"\t\n\v\f\r\x1c\x1d\x1e\x1f", b" " * 9)
# A literal start of two letters makes each search faster than "  +" or one pattern for all blanks.
_BLANKS = re.compile(rb"   *")
_WIDE_BLANKS = re.compile(rb"\xc2[\x85\xa0]"), re.compile(rb"\xe2\x80[\x80-\x8a\xa8\xa9\xaf]")
_OTHER_WIDE_BLANKS = b"\xe1\x9a\x80", b"\xe2\x81\x9f", b"\xe3\x80\x80"


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


class DigestTable:
    """The digests of documents that were accepted, 64 bits of each, at 8 bytes a slot.

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

    def __contains__(self, digest: bytes) -> bool:
        key = _key_of(digest)
        slots = self._slots
        place = key >> (64 - self._bits)
        while slot := slots[place]:
            if slot == key:
                return True
            place += 1
        return False

    def add(self, digest: bytes) -> None:
        """Add the digest of a document."""
        self._add(_key_of(digest))

    def _add(self, key: int) -> None:
        if self._size >= self.LOAD * (1 << self._bits):
            self._grow()

        slots = self._slots
        place = key >> (64 - self._bits)
        while slots[place]:
            place += 1

        if place >= len(slots) - 2:
            self._grow()
            self._add(key)
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


def _key_of(digest: bytes) -> int:
    """Return 64 bits of a digest, not those that decide which documents are held out; never 0."""
    return int.from_bytes(digest[8:16], "big") or 1
