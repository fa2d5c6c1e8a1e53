"""Which held-out documents a model has learnt from: they stand in the training text of a subset that it read."""

import hashlib
from collections.abc import Iterable

from lightlm.data.subset import KIND, TextSubset, open_subset
from lightlm.errors import StoreError
from lightlm.store.home import find_home


def find_learnt(subset: TextSubset, learnt_subsets: Iterable[str]) -> frozenset[int]:
    """Return the indexes of the held-out documents of `subset` that are in the training text of `learnt_subsets`.

    Those are fingerprints; a subset that is not in this machine's store any more is not looked at.
    """
    indexes: dict[bytes, list[int]] = {}
    for index, document in enumerate(subset.read_documents("validation")):
        indexes.setdefault(_digest(document), []).append(index)
    learnt: set[int] = set()
    for name in learnt_subsets:
        folder = find_home() / "store" / KIND / name
        if not name or name == subset.fingerprint or not folder.is_dir():
            continue
        try:
            read = open_subset(folder)
        except StoreError:
            continue
        for document in read.read_documents("train"):
            learnt.update(indexes.get(_digest(document), ()))
    return frozenset(learnt)


def _digest(document: bytes) -> bytes:
    return hashlib.sha256(document).digest()[:16]
