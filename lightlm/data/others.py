"""The further texts of a run: read, kept apart from the held-out text of the first, and weighed
against it.

Each keeps a subset of its own in the store, the same whatever it is mixed with; only where texts
overlap, a copy without what they share is made.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lightlm.data.copies.leaks import find_leaks
from lightlm.data.copies.written import Documents
from lightlm.data.ngram import measure_worth
from lightlm.data.origin import describe_origin, list_names
from lightlm.data.overlap import find_learned
from lightlm.data.passages import Piece
from lightlm.data.subset import KIND, OtherSubset, TextSubset, materialize_subset, open_subset
from lightlm.data.writing import DocumentWriter
from lightlm.errors import DatasetError
from lightlm.json_object import JsonObject
from lightlm.params import DatasetParams, Weight
from lightlm.quantities import count
from lightlm.store.commit import open_commit
from lightlm.store.disk import hash_file
from lightlm.store.lock import ignore
from lightlm.store.stage import open_stage

FORMAT = 1
OVERLAPS = "overlaps"
"""Kind of the stages that hold which documents of a text stand in earlier ones."""

LEAST_BYTES = 1 << 20
"""Bytes that are read of a further text at least, if it has them."""


def add_others(
    home: Path,
    subset: TextSubset,
    params: DatasetParams,
    needed_bytes: Sequence[int],
    max_seconds: float | None = None,
    *,
    sample_bytes: int | None = None,
    report: Callable[[str], None] = ignore,
) -> TextSubset:
    """Return the first text with the others that `params` name; `needed_bytes` are of all of them
    together, and the rest as for `materialize_subset`.

    Raises:
        DatasetError: one of them cannot be used.
    """
    texts = [replace(subset, name=list_names(describe_origin(params, subset.name))[0])]
    others: list[OtherSubset] = []
    needed = needed_bytes[0] if needed_bytes else subset.num_bytes
    for one, own in zip(params.others, params.list_others(), strict=True):
        other = materialize_subset(
            home,
            own,
            needed_bytes=[limit_bytes(one.weight, needed)],
            max_seconds=max_seconds,
            sample_bytes=sample_bytes,
            report=report,
        )
        name = list_names(describe_origin(own, other.name))[0]
        name = name_apart(name, [text.name for text in texts])
        other = replace(keep_apart(home, other, texts, report=report), name=name)
        texts.append(other)
        others.append(OtherSubset(other, one.weight, measure_worth(subset, other)))
    return replace(subset, others=tuple(others))


def name_apart(name: str, taken: Sequence[str]) -> str:
    """Return the name, with a number where another text has it: scores and shares go by names."""
    apart = name
    number = len(taken) + 1
    while apart in taken:
        apart = f"{name}-{number}"
        number += 1
    return apart


def limit_bytes(weight: Weight, needed_bytes: int) -> int:
    """Return the bytes to read of a text with this weight: a power of two, which runs of other
    weights find again.
    """
    share = weight if isinstance(weight, float) else 1.0
    return max(LEAST_BYTES, 1 << (int(share * needed_bytes) - 1).bit_length())


def keep_apart(
    home: Path,
    subset: TextSubset,
    earlier: Sequence[TextSubset],
    *,
    report: Callable[[str], None] = ignore,
) -> TextSubset:
    """Return a text without the training documents that hold the earlier texts' held-out ones, and
    without the held-out documents that the earlier ones train on; itself where there are none.

    Raises:
        DatasetError: nothing is left of it.
    """
    names = [one.fingerprint for one in earlier]
    key = {"format": FORMAT, "subset": subset.fingerprint, "earlier": names}
    found = open_stage(home, OVERLAPS, key, lambda _: find_overlaps(home, subset, earlier)).meta
    if not found["train"] and not found["validation"]:
        return subset

    report(
        f"{subset.name}: {count(len(found['train']), 'training document')} that held-out text of "
        f"{earlier[0].name} stands in, and {count(len(found['validation']), 'held-out document')} "
        "that is trained on, left out"
    )
    stage = open_stage(
        home, KIND, key, lambda folder: _leave_out(folder, subset, found), subset.num_bytes
    )
    apart = open_subset(stage.folder)
    return replace(
        apart,
        reused=stage.reused,
        download_seconds=subset.download_seconds,
        bytes_per_second=subset.bytes_per_second,
    )


def find_overlaps(home: Path, subset: TextSubset, earlier: Sequence[TextSubset]) -> JsonObject:
    """Return by split the numbers of the documents that stand in earlier texts."""
    train = Documents(subset.folder, "train")
    is_leak = np.zeros(len(train), dtype=bool)
    for one in earlier:
        held_out = Documents(one.folder, "validation")
        is_leak |= find_leaks(held_out, train)
        held_out.close()
    train.close()
    learned = find_learned(home, subset, [one.fingerprint for one in earlier])
    return {"train": np.flatnonzero(is_leak).tolist(), "validation": sorted(learned)}


def _leave_out(folder: Path, subset: TextSubset, found: JsonObject) -> JsonObject:
    """Write a subset without the documents `found`; return what it says of itself."""
    sizes = {}
    pieces = {}
    for split in ("train", "validation"):
        gone = frozenset(found[split])
        wholes = np.concatenate(([0], np.cumsum(subset.read_ends(split))))
        with DocumentWriter(folder, split) as writer:
            for index, text in enumerate(subset.read_documents(split)):
                if index not in gone:
                    writer.add(Piece(text, int(wholes[index]), 0))
        sizes[split] = writer.num_bytes
        pieces[split] = writer.num_pieces
        if not writer.num_pieces:
            raise DatasetError(
                f"all {split} documents of {subset.name} stand in a text named before it; name "
                "one of the two"
            )

    record = subset.record.model_copy(
        update={
            "train_bytes": sizes["train"],
            "validation_bytes": sizes["validation"],
            "notes": [
                *subset.record.notes,
                f"left out, as a text named before it has them: {len(found['train']):,} documents "
                f"to train on, {len(found['validation']):,} held out",
            ],
        }
    )
    kept = open_commit(subset.folder, KIND).meta
    return kept | {
        "num_bytes": sizes["train"],
        "num_validation_documents": pieces["validation"],
        "num_validation_bytes": sizes["validation"],
        "validation_sha256": hash_file(folder / "validation.text"),
        "record": record.model_dump(mode="json"),
    }
