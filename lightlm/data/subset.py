"""The subset: the documents of a run, split, deduplicated and kept in the store as raw UTF-8.

Owns what a document is, which side of the split it falls on, and how many bytes are taken. Every row that is left
out is counted.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np

from lightlm.data.file_checks import EXPANDED_BYTES
from lightlm.data.files import find_files
from lightlm.data.passages import SHORTEST_PASSAGE_BYTES, cut_documents
from lightlm.data.source import Source, check_source, find_local_path, open_source
from lightlm.errors import DatasetError
from lightlm.params import DatasetParams
from lightlm.store.commit import open_commit
from lightlm.store.lock import ignore
from lightlm.store.shared import Shareable
from lightlm.store.stage import Stage, find_any, open_stage

FORMAT = 1
KIND = "subsets"
GLANCE_BYTES = 1_000_000
"""Files up to this size are looked through before anything starts; it takes some milliseconds."""

LEAST_BYTES = 1 << 21
"""Read of a slow source however short the time is."""

Split = Literal["train", "validation"]


@dataclass(frozen=True)
class TextSubset:
    """Documents of one run. Counts of rows as a person sees them; bytes of UTF-8; digests in hex."""

    folder: Path
    fingerprint: str
    reused: bool
    name: str
    source: str
    source_digest: str
    num_documents: int
    total_documents: int | None
    num_bytes: int
    num_validation_documents: int
    num_validation_bytes: int
    validation_sha256: str
    num_duplicates_removed: int
    num_empty_rows: int
    num_invalid_rows: int
    is_running_text: bool
    notice: str | None
    download_seconds: float = 0.0

    def text_path(self, split: Split) -> Path:
        """Return the file of a split's documents."""
        return self.folder / f"{split}.text"

    def read_lengths(self, split: Split) -> Iterator[np.ndarray]:
        """Yield the lengths of a split's documents in bytes, in order, some thousand at a time (int64)."""
        lengths = np.fromfile(self.folder / f"{split}.lengths", dtype="<u8").astype(np.int64)
        yield from (lengths[start : start + 65_536] for start in range(0, len(lengths), 65_536))

    def read_documents(self, split: Split) -> Iterator[bytes]:
        """Yield the UTF-8 of each document, or passage of running text, of a split, in order."""
        with self.text_path(split).open("rb") as text:
            for lengths in self.read_lengths(split):
                for length in lengths.tolist():
                    yield text.read(length)

    def summary(self) -> str:
        """Return "Using subset: 20 of 36,718 documents" and the like, for people."""
        sizes = f"{self.num_bytes / 1e6:,.1f} MB to train on, {self.num_validation_bytes / 1e6:,.2f} MB held out"
        if self.total_documents is None:
            return f"Using {self.num_documents:,} documents ({sizes})"
        if self.num_documents >= self.total_documents:
            return f"Using all {self.num_documents:,} documents ({sizes})"
        return f"Using subset: {self.num_documents:,} of {self.total_documents:,} documents ({sizes})"


def check_dataset(params: DatasetParams, context_length: int | None = None) -> None:
    """Refuse at once what cannot be trained on, as far as a glance tells: paths, columns, too little text.

    Raises:
        DatasetError: with what to do.
    """
    check_source(params)
    path = find_local_path(params.source)
    if path is None:
        return
    splits = find_files(path)
    num_bytes = sum(file.stat().st_size for files in splits.values() for file in files)
    if num_bytes > GLANCE_BYTES:
        return
    source = open_source(params)
    has_own_split = any(split in source.splits for split in ("validation", "test"))
    wanted, least = (1 if has_own_split else 2), (context_length or 0) + 1
    digests: set[bytes] = set()
    num_documents = text_bytes = 0
    for document in cut_documents(source, source.rows("train")):
        digests.add(hashlib.sha256(document).digest())
        num_documents, text_bytes = num_documents + 1, text_bytes + len(document)
        if (len(digests) >= wanted and text_bytes >= least) or text_bytes > EXPANDED_BYTES:
            break
    if len(digests) < wanted:
        _refuse_too_little(params, source, num_documents)
    if context_length is not None and text_bytes < context_length + 1:
        raise DatasetError(
            f"{params.source} has {text_bytes:,} bytes of text, fewer than model.context_length {context_length} "
            "tokens can be made of; give more text or a smaller context_length"
        )


def materialize_subset(
    params: DatasetParams,
    *,
    needed_bytes: Sequence[int] = (),
    max_seconds: float | None = None,
    fraction: float | None = None,
    report: Callable[[str], None] = ignore,
) -> TextSubset:
    """Return the documents that `params` name, made or found in the store.

    Reading ends after `max_documents` rows, or `max_bytes` or `needed_bytes` of training text, whichever is first.
    Any of `needed_bytes` will do if it is in the store; else the first is made. `fraction` is of all documents, or of
    a plain text's bytes. `max_seconds` is what reading a slow source may take.

    Raises:
        DatasetError: no such data, no text in it, or too little to hold any out.
    """
    source = open_source(params, report)
    if fraction is not None:
        params = _limit_to_fraction(params, source, fraction)
    needed_bytes = _limit_to_seconds(source, needed_bytes, max_seconds)
    choices = [_limits(params, source, needed) for needed in needed_bytes or (None,)]
    key, limits = choices[0]
    shareable = Shareable(re.compile(r"(train|validation)\.(text|lengths)"), TextSubset)
    found = find_any(KIND, [k for k, _ in choices], shareable, report=report)
    num_bytes = min(source.num_bytes or 0, limits["max_bytes"] or source.num_bytes or 0)
    stage = found or open_stage(
        KIND,
        key,
        lambda folder: _build(folder, params, source, limits),
        num_bytes,
        shareable=shareable,
        report=report,
    )
    return _describe(stage, notice=source.notice, download_seconds=source.download_seconds)


def _limit_to_fraction(params: DatasetParams, source: Source, fraction: float) -> DatasetParams:
    limits: dict[str, int] = {}
    if source.total_rows is not None and params.max_documents is None:
        limits["max_documents"] = max(2, round(fraction * source.total_rows))
    elif source.num_bytes is not None and params.max_bytes is None:
        limits["max_bytes"] = max(1000, round(fraction * source.num_bytes))
    return params.model_copy(update=limits)


def _limit_to_seconds(source: Source, needed_bytes: Sequence[int], max_seconds: float | None) -> Sequence[int]:
    """Return `needed_bytes`, or less of a slow source: a power of two, so that later runs find it again.

    A text with less than is needed is taken whole, and so is the same subset for every budget.
    """
    needed_bytes = [n for n in needed_bytes if source.num_bytes is None or n < source.num_bytes]
    if source.bytes_per_second is None or max_seconds is None or not needed_bytes:
        return needed_bytes
    affordable = max(LEAST_BYTES, 1 << int(max_seconds * source.bytes_per_second).bit_length() - 1)
    return needed_bytes if needed_bytes[0] <= affordable else [affordable]


def _limits(params: DatasetParams, source: Source, needed_bytes: int | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the key of a subset in the store, and the limits that it is read within."""
    limits = {
        "max_documents": params.max_documents,
        "max_bytes": min(filter(None, (params.max_bytes, needed_bytes)), default=None),
        "max_validation_bytes": params.max_validation_bytes,
        "validation_fraction": params.validation_fraction,
        "validation_split": params.validation_split,
        "text_column": params.text_column,
        "train_split": params.train_split,
    }
    return {"format": FORMAT, "digest": source.digest, "name": source.name} | limits, limits


def open_subset(folder: Path) -> TextSubset:
    """Return the subset in a committed folder, its digests verified."""
    commit = open_commit(folder, KIND)
    return _describe(Stage(folder, folder.name, commit.meta, reused=True), notice=commit.meta["notice"])


def _describe(stage: Stage, *, notice: str | None, download_seconds: float = 0.0) -> TextSubset:
    values = stage.meta | {"notice": notice, "download_seconds": download_seconds}
    return TextSubset(folder=stage.folder, fingerprint=stage.fingerprint, reused=stage.reused, **values)


def _build(folder: Path, params: DatasetParams, source: Source, limits: Mapping[str, Any]) -> dict[str, Any]:
    """Write both splits' documents into `folder`; return the counts."""
    is_running = source.is_running_text
    own_split = next((s for s in ("validation", "test") if s in source.splits), None)
    reader = RowReader(source, limits["max_documents"])
    source.counts.empty = source.counts.invalid = 0
    with DocumentWriter(folder, "train") as train, DocumentWriter(folder, "validation") as held_out:
        if own_split is not None:
            for document in cut_documents(source, source.rows(own_split)):
                if held_out.num_bytes + len(document) > limits["max_validation_bytes"] and held_out.num_bytes:
                    break
                held_out.add(document)
            source.counts.empty = source.counts.invalid = 0
            route = Router(fraction=0.0, held_out=held_out.digests)
        else:
            route = Router(fraction=limits["validation_fraction"], held_out=set())
            threshold = _find_threshold(source, limits, route)
            route = Router(fraction=threshold, held_out=set())
            # The look for the threshold has read rows, too.
            source.counts.empty = source.counts.invalid = 0
        for document in cut_documents(source, reader.rows()):
            side = route.side_of(document)
            if side == "validation":
                if held_out.num_bytes + len(document) <= limits["max_validation_bytes"] or not held_out.num_bytes:
                    held_out.add(document)
            elif side == "train":
                train.add(document)
            if limits["max_bytes"] is not None and train.num_bytes >= limits["max_bytes"]:
                break
        _check_enough(train, held_out, params, source)
        counted = train.num_documents if source.is_plain_text else reader.num_rows
        total = None if limits["max_bytes"] and source.is_plain_text else source.total_rows
        return {
            "name": safe_name(source.name),
            "source": params.source if source.notice is None else source.name,
            "source_digest": source.short_digest,
            "num_documents": counted,
            "total_documents": total,
            "num_bytes": train.num_bytes,
            "num_validation_documents": held_out.num_documents,
            "num_validation_bytes": held_out.num_bytes,
            "validation_sha256": held_out.sha256(),
            "num_duplicates_removed": route.num_duplicates,
            "num_empty_rows": source.counts.empty,
            "num_invalid_rows": source.counts.invalid,
            "is_running_text": is_running,
            "notice": source.notice,
        }


class RowReader:
    """The training rows, counted, up to a number of them."""

    def __init__(self, source: Source, max_rows: int | None) -> None:
        self.source = source
        self.max_rows = max_rows
        self.num_rows = 0

    def rows(self) -> Iterator[str]:
        """Yield the rows."""
        for row in self.source.rows("train"):
            if self.max_rows is not None and self.num_rows >= self.max_rows and not self.source.is_plain_text:
                return
            self.num_rows += 1
            yield row


class Router:
    """Decides on which side of the split a document falls; a copy of a held-out one on none."""

    def __init__(self, fraction: float, held_out: set[bytes]) -> None:
        self.fraction = fraction
        self.held_out = held_out
        self.num_duplicates = 0

    def side_of(self, document: bytes) -> str:
        """Return "train", "validation" or "neither"."""
        digest = hashlib.sha256(document).digest()
        if digest[:16] in self.held_out:
            self.num_duplicates += 1
            return "neither"
        return "validation" if place_of(digest) < self.fraction else "train"


def place_of(digest: bytes) -> float:
    """Return where in [0, 1) a document's hash falls; equal documents fall on the same side."""
    return int.from_bytes(digest[:8], "big") / 2**64


def _find_threshold(source: Source, limits: Mapping[str, Any], route: Router) -> float:
    """Return the fraction below which hashes are held out: the one wanted, or what holds out at least one document.

    Only a small data set is read to its end here; a large one has both sides within its first documents.
    """
    places: set[float] = set()
    taken = 0
    reader = RowReader(source, limits["max_documents"])
    for document in cut_documents(source, reader.rows()):
        places.add(place_of(hashlib.sha256(document).digest()))
        taken += len(document)
        has_both = any(p < route.fraction for p in places) and any(p >= route.fraction for p in places)
        if has_both or (limits["max_bytes"] is not None and taken >= 2 * limits["max_bytes"]):
            break
    ordered = sorted(places)
    if len(ordered) >= 2 and ordered[0] >= route.fraction:
        return (ordered[0] + ordered[1]) / 2
    if len(ordered) >= 2 and ordered[-1] < route.fraction:
        return (ordered[-2] + ordered[-1]) / 2
    return route.fraction


class DocumentWriter:
    """Writes the documents of a split: their bytes one after the other, and the length of each."""

    def __init__(self, folder: Path, split: Split) -> None:
        self.num_documents = 0
        self.num_bytes = 0
        self.digests: set[bytes] = set()
        self._keeps_digests = split == "validation"
        self._text = (folder / f"{split}.text").open("wb")
        self._lengths = (folder / f"{split}.lengths").open("wb")
        self._hash = hashlib.sha256()

    def add(self, document: bytes) -> None:
        """Append a document."""
        self._text.write(document)
        self._lengths.write(len(document).to_bytes(8, "little"))
        self.num_documents += 1
        self.num_bytes += len(document)
        if self._keeps_digests:
            self._hash.update(document)
            self.digests.add(hashlib.sha256(document).digest()[:16])

    def sha256(self) -> str:
        """Return the SHA-256 of all bytes added to the validation split."""
        return self._hash.hexdigest()

    def __enter__(self) -> "DocumentWriter":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close both files."""
        self._text.close()
        self._lengths.close()


def _check_enough(train: DocumentWriter, held_out: DocumentWriter, params: DatasetParams, source: Source) -> None:
    if train.num_documents and held_out.num_documents:
        return
    _refuse_too_little(params, source, train.num_documents + held_out.num_documents)


def _refuse_too_little(params: DatasetParams, source: Source, num_documents: int) -> NoReturn:
    found = f"{source.counts.empty:,} empty rows, {num_documents:,} with text"
    if not num_documents:
        raise DatasetError(f"{params.source} holds no text ({found}); give a data set with text in it")
    unit = (
        f"passages of {SHORTEST_PASSAGE_BYTES:,} bytes, each ended by a blank line,"
        if source.is_plain_text
        else "different documents"
    )
    raise DatasetError(
        f"{params.source} is too small ({found}); at least 2 {unit} are needed, one to learn from and one held out"
    )


def safe_name(name: str) -> str:
    """Return a name of letters, digits, dots and dashes, at most 40 long, for runs and files."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:40] or "text"
