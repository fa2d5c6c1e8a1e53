"""Overlap: held-out documents that a model was trained on, found in the training text of its
subsets.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from lightlm.data.subset import KIND, TextSubset, open_subset
from lightlm.errors import StoreError

MOST_BYTES_BY_LINE = 32_000_000
"""Bytes of a running text up to which it is compared line by line, at 30 MB/s: a small text that
grows is cut into other passages.
"""

SHORTEST_LINE_BYTES = 24
"""Bytes of a line from which it identifies a passage."""


def find_learned(home: Path, subset: TextSubset, learned_subsets: Iterable[str]) -> frozenset[int]:
    """Return the indexes of the held-out documents of `subset` that are in the training text of
    `learned_subsets`.

    Those are fingerprints; a subset that is not in this machine's store any more is not looked at.
    Of running text, a passage counts when half of it stands there, line by line.
    """
    learned: set[int] = set()
    for name in learned_subsets:
        folder = home / "store" / KIND / name
        if not name or name == subset.fingerprint or not folder.is_dir():
            continue
        try:
            read = open_subset(folder)
        except StoreError:
            continue
        by_line = read.is_running_text and read.num_bytes <= MOST_BYTES_BY_LINE
        learned.update(_find_shared(subset, read, by_line=by_line))

    return frozenset(learned)


def _find_shared(subset: TextSubset, read: TextSubset, *, by_line: bool) -> Iterator[int]:
    held_out = [
        {_digest(piece): len(piece) for piece in _cut(document, by_line=by_line)}
        for document in subset.read_documents("validation")
    ]
    wanted = set().union(*held_out)
    found = {
        digest
        for document in read.read_documents("train")
        for piece in _cut(document, by_line=by_line)
        if (digest := _digest(piece)) in wanted
    }

    for index, pieces in enumerate(held_out):
        shared = sum(size for digest, size in pieces.items() if digest in found)
        if shared and 2 * shared >= sum(pieces.values()):
            yield index


def _cut(document: bytes, *, by_line: bool) -> list[bytes]:
    if not by_line:
        return [document]
    return [line for line in document.splitlines() if len(line) >= SHORTEST_LINE_BYTES]


def _digest(piece: bytes) -> bytes:
    return hashlib.sha256(piece).digest()[:16]
