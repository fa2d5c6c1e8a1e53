"""A split's files: the documents' bytes one after the other, the length of each, and where a
document ends.
"""

import hashlib
from array import array
from pathlib import Path
from typing import Self

import numpy as np

from lightlm.data.passages import Piece

BUFFERED_BYTES = 1 << 20
"""Bytes of text that are written to the disk's file at a time."""

COPIED_BYTES = 1 << 24
"""Bytes that are copied at a time when documents are dropped."""


class DocumentWriter:
    """Writes the documents of a split; those that turn out to be copies can be dropped again. A
    context manager.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.num_bytes = 0
        self._folder = folder
        self._split = split
        self._lengths, self._documents, self._files = array("Q"), array("Q"), array("I")
        self._text = (folder / f"{split}.text").open("wb", BUFFERED_BYTES)

    @property
    def num_pieces(self) -> int:
        """Return how many documents, or passages of documents, were written."""
        return len(self._lengths)

    @property
    def documents(self) -> np.ndarray:
        """Return which document each piece is of, (pieces,) uint64."""
        return np.array(self._documents)

    @property
    def files(self) -> np.ndarray:
        """Return which file each piece is of, (pieces,) uint32."""
        return np.array(self._files)

    @property
    def lengths(self) -> np.ndarray:
        """Return each piece's bytes, (pieces,) uint64."""
        return np.array(self._lengths)

    @property
    def ends(self) -> np.ndarray:
        """Return whether a document ends with each piece, (pieces,) bool."""
        documents = self.documents
        return (
            np.append(documents[1:] != documents[:-1], True)
            if len(documents)
            else np.empty(0, np.bool_)
        )

    def add(self, piece: Piece) -> None:
        """Append a document or a passage of one."""
        self._text.write(piece.text)
        self._lengths.append(len(piece.text))
        self._documents.append(piece.document)
        self._files.append(piece.file)
        self.num_bytes += len(piece.text)

    def drop(self, gone: np.ndarray) -> None:
        """Drop the pieces that `gone` marks, (pieces,) bool, from what was written."""
        if not gone.any():
            return

        self._text.close()
        path = self._folder / f"{self._split}.text"
        thinned = self._folder / f"{self._split}.thinned"

        with path.open("rb") as old, thinned.open("wb") as new:
            for start, length in _spans_kept(self.lengths, gone):
                old.seek(start)
                while length:
                    block = old.read(min(length, COPIED_BYTES))
                    new.write(block)
                    length -= len(block)

        thinned.replace(path)
        self.num_bytes -= int(self.lengths[gone].sum())
        for values in (self._lengths, self._documents, self._files):
            values[:] = array(values.typecode, np.array(values)[~gone].tobytes())

        self._text = path.open("ab", BUFFERED_BYTES)

    def take(self, gone: np.ndarray) -> list[Piece]:
        """Drop the pieces that `gone` marks, and return them."""
        self.flush()
        lengths = self.lengths.astype(np.int64)
        starts = (np.cumsum(lengths) - lengths).tolist()
        taken: list[Piece] = []
        with (self._folder / f"{self._split}.text").open("rb") as text:
            for index in np.flatnonzero(gone).tolist():
                text.seek(starts[index])
                content = text.read(self._lengths[index])
                taken.append(Piece(content, self._documents[index], self._files[index]))
        self.drop(gone)
        return taken

    def flush(self) -> None:
        """Bring text and lengths to the disk's files, where others read them."""
        self._text.flush()
        self.lengths.astype("<u8").tofile(self._folder / f"{self._split}.lengths")

    def write_wholes(self) -> Path:
        """Write what the search for near copies reads, and return the file that only it needs."""
        self.flush()
        path = self._folder / f"{self._split}.wholes"
        self.documents.astype("<i8").tofile(path)
        return path

    def sha256(self) -> str:
        """Return the SHA-256 of all bytes written."""
        self._text.flush()
        with (self._folder / f"{self._split}.text").open("rb") as text:
            return hashlib.file_digest(text, "sha256").hexdigest()

    def close(self) -> None:
        """Write lengths and ends, and close the files."""
        self.flush()
        self._text.close()
        self.ends.tofile(self._folder / f"{self._split}.ends")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _spans_kept(lengths: np.ndarray, gone: np.ndarray) -> list[tuple[int, int]]:
    """Return start and bytes of each run of pieces that stay."""
    starts = np.concatenate(([0], np.cumsum(lengths.astype(np.int64))))
    edges = np.flatnonzero(np.diff(np.concatenate(([True], gone, [True])).astype(np.int8)))
    return [
        (int(starts[first]), int(starts[last] - starts[first]))
        for first, last in edges.reshape(-1, 2)
    ]
