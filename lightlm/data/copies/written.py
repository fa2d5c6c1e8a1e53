"""The documents of a split as they were written: read again by number, by several threads."""

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

BATCH_BYTES = 1 << 20
"""Bytes of documents that are hashed together."""


class Documents:
    """Documents of one split: `<split>.text` holds their UTF-8, `<split>.lengths` how long each is.

    `wholes` says which whole document each is a passage of, (documents,) int64; without
    `<split>.wholes` of none.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.folder = folder
        self.split = split
        lengths = np.fromfile(folder / f"{split}.lengths", dtype="<u8").astype(np.int64)
        self.lengths = lengths
        self.ends = np.cumsum(lengths)
        wholes = folder / f"{split}.wholes"
        self.wholes = np.fromfile(wholes, dtype="<i8") if wholes.exists() else None
        with (folder / f"{split}.text").open("rb") as file:
            self._text = (
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if len(lengths) else b""
            )

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> bytes:
        end = int(self.ends[number])
        return self._text[end - int(self.lengths[number]) : end]

    def read_range(self, start: int, stop: int) -> list[bytes]:
        """Return some neighboring documents."""
        ends = self.ends[start:stop].tolist()
        starts = [ends[0] - int(self.lengths[start]), *ends[:-1]]
        return [self._text[first:last] for first, last in zip(starts, ends, strict=True)]

    def batches(self) -> Iterator[tuple[int, int]]:
        """Yield ranges of documents of about `BATCH_BYTES`, at least one document each."""
        start = 0
        while start < len(self):
            before = int(self.ends[start] - self.lengths[start])
            stop = max(
                start + 1, int(np.searchsorted(self.ends, before + BATCH_BYTES, side="right"))
            )
            yield start, stop
            start = stop

    def close(self) -> None:
        """Let go of the file."""
        if isinstance(self._text, mmap.mmap):
            self._text.close()
