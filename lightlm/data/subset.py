"""The subset: the documents of a run, split, deduplicated and kept in the store as raw UTF-8.

The limits of a run and the source's digest name it in the store.
"""

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lightlm.data.corpus import Corpus, is_corpus, open_corpus, open_part
from lightlm.data.files.local_path import find_local_path
from lightlm.data.files.record import DataRecord
from lightlm.data.parts import is_large, keep_in_folder, keep_in_store, read_parts
from lightlm.data.source import Source, check_hub, open_source
from lightlm.data.splitting import Limits, Split, build_subset, glance
from lightlm.json_object import JsonObject
from lightlm.params import DatasetParams, Weight
from lightlm.quantities import count, format_bytes
from lightlm.store.commit import open_commit
from lightlm.store.lock import ignore
from lightlm.store.shared import Shareable
from lightlm.store.stage import Stage, find_any, open_stage

FORMAT = 3
KIND = "subsets"
GLANCE_BYTES = 1_000_000
"""Files up to this size are looked through before anything starts; it takes some milliseconds."""

LEAST_BYTES = 1 << 21
"""Bytes that are read of a slow source however short the time is."""

TIMES_READ = (1, 2, 4)
"""Times what is needed that is read of a part of a data set, until all that is needed is there."""

SHORT = 0.8
"""Fraction of what is needed from which it is there; near copies are found at the end."""

SAMPLE_SECONDS = 8.0
"""Seconds that reading a sample of a slow source takes at most."""


@dataclass(frozen=True)
class TextSubset:
    """Documents of one run. Counts of documents as a person sees them; bytes of UTF-8; digests in
    hex.

    Training bytes are those of different documents: copies are left out, unless dataset.duplicates
    keeps them.
    """

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
    is_running_text: bool
    record: DataRecord
    notice: str | None
    download_seconds: float = 0.0
    is_cut: bool = False
    """Whether reading ended before the source did."""
    source_bytes: int | None = None
    """Bytes of the whole source's training text, as far as its files' sizes tell."""
    bytes_per_second: float | None = None
    """How fast a slow source gives text; None where reading is no cost worth a thought."""
    corpus: Corpus | None = None
    """Where the whole text is, tokenized; this is a sample of it then."""
    others: tuple["OtherSubset", ...] = ()
    """The further texts that a run trains on; the model is judged by this one."""

    @property
    def identity(self) -> str:
        """Return the fingerprints of this text and of the others."""
        return "+".join([self.fingerprint, *(one.subset.fingerprint for one in self.others)])

    @property
    def whole_bytes(self) -> int:
        """Bytes of training text that the whole source has: exact where all was read, else by its
        documents.
        """
        if not self.is_cut:
            return self.num_bytes
        if self.total_documents:
            return round(self.num_bytes * self.total_documents / max(1, self.num_documents))
        return max(self.num_bytes, self.source_bytes or 0)

    def readable_bytes(self, needed_bytes: int, max_seconds: float) -> int:
        """Return the bytes of training text that a run takes which needs so many, and has so long
        for a slow source.
        """
        found = min(needed_bytes, self.whole_bytes)
        if self.bytes_per_second is None:
            return found
        return min(found, _affordable_bytes(max_seconds, self.bytes_per_second))

    def text_path(self, split: Split) -> Path:
        """Return the file of a split's documents."""
        return self.folder / f"{split}.text"

    def read_lengths(self, split: Split) -> Iterator[np.ndarray]:
        """Yield the lengths of a split's documents in bytes, in order, some thousand at a time
        (int64).
        """
        lengths = np.fromfile(self.folder / f"{split}.lengths", dtype="<u8").astype(np.int64)
        yield from (lengths[start : start + 65_536] for start in range(0, len(lengths), 65_536))

    def read_ends(self, split: Split) -> np.ndarray:
        """Return for each document or passage of a split whether a document ends with it (bool)."""
        return np.fromfile(self.folder / f"{split}.ends", dtype=np.bool_)

    def read_documents(self, split: Split) -> Iterator[bytes]:
        """Yield the UTF-8 of each document, or passage of running text, of a split, in order."""
        with self.text_path(split).open("rb") as text:
            for lengths in self.read_lengths(split):
                for length in lengths.tolist():
                    yield text.read(length)

    def summary(self) -> str:
        """Return "Using subset: 20 of 36,718 documents" and the like, for people."""
        record = self.record
        sizes = (
            f"{format_bytes(record.train_bytes)} to train on, "
            f"{format_bytes(record.validation_bytes)} held out"
        )
        number = count(self.num_documents, "document")
        if self.total_documents is None:
            return f"Using {number} ({sizes})"

        if self.num_documents >= self.total_documents:
            return f"Using all {number} ({sizes})"

        return (
            f"Using subset: {self.num_documents:,} of {self.total_documents:,} documents ({sizes})"
        )


SHAREABLE = Shareable(re.compile(r"(train|validation)\.(text|lengths|ends)"), TextSubset)


class OtherSubset(NamedTuple):
    """A further text, its weight as a person gave it, and how many bytes of the first text one of
    its bytes is worth.
    """

    subset: TextSubset
    weight: Weight
    worth: float


def check_dataset(params: DatasetParams, context_length: int | None = None) -> None:
    """Refuse at once what cannot be trained on, as far as a glance tells: paths, columns, too
    little text.

    Raises:
        DatasetError: with what to do.
    """
    if is_corpus(params):
        return
    for other in params.list_others():
        check_dataset(other, context_length)
    if find_local_path(params.source) is None:
        check_hub(params)
        return
    source = open_source(params)
    if source.about_bytes is not None and source.about_bytes <= GLANCE_BYTES:
        glance(source, params, context_length)


def materialize_subset(
    home: Path,
    params: DatasetParams,
    *,
    needed_bytes: Sequence[int] = (),
    max_seconds: float | None = None,
    fraction: float | None = None,
    sample_bytes: int | None = None,
    report: Callable[[str], None] = ignore,
) -> TextSubset:
    """Return the documents that `params` name, made or found in the store.

    Reading ends after `max_documents` rows, or `max_bytes` or `needed_bytes` of training text,
    whichever is first. Any of `needed_bytes` will do if it is in the store; else the first is made.
    `fraction` is of all documents, or of a plain text's bytes. `max_seconds` is what reading a slow
    source may take. With `sample_bytes`, so much is made where none of what is needed is in the
    store: enough for a forecast.

    Raises:
        DatasetError: no such data, no text in it, or too little to hold any out.
    """
    corpus = open_corpus(params.source)
    if corpus is not None:
        stage = open_part(home, corpus, KIND, SHAREABLE, report=report)
        digest = open_source(params).short_digest
        return replace(_describe(stage, notice=None), corpus=corpus, source_digest=digest)

    is_all_needed = not (needed_bytes or sample_bytes or params.max_bytes)
    source = open_source(params, report, is_all_needed=is_all_needed)
    if fraction is not None:
        params = _limit_to_fraction(params, source, fraction)

    wanted = _limit_to_seconds(source, needed_bytes, max_seconds)
    choices = [_limits(params, source, needed) for needed in wanted or (None,)]
    key, limits = choices[0]
    sample = _limit_to_seconds(
        source, [] if sample_bytes is None else [sample_bytes], SAMPLE_SECONDS
    )

    if sample and (limits.max_bytes is None or sample[0] < limits.max_bytes):
        key, limits = _limits(params, source, sample[0])
        choices.append((key, limits))

    found = find_any(home, KIND, [k for k, _ in choices], SHAREABLE, report=report)
    num_bytes = min(source.num_bytes or 0, limits.max_bytes or source.num_bytes or 0)
    builder = _Builder(home, params, source, limits, report)
    stage = found or open_stage(
        home, KIND, key, builder.build, num_bytes, shareable=SHAREABLE, report=report
    )

    seconds = builder.source.download_seconds
    subset = _describe(stage, notice=source.notice, download_seconds=seconds)
    return replace(subset, bytes_per_second=source.bytes_per_second)


def _limit_to_fraction(params: DatasetParams, source: Source, fraction: float) -> DatasetParams:
    changes: dict[str, int] = {}
    if source.total_rows is not None and params.max_documents is None:
        changes["max_documents"] = max(2, round(fraction * source.total_rows))
    elif source.num_bytes is not None and params.max_bytes is None:
        changes["max_bytes"] = max(1000, round(fraction * source.num_bytes))
    return params.model_copy(update=changes)


def _limit_to_seconds(
    source: Source, needed_bytes: Sequence[int], max_seconds: float | None
) -> Sequence[int]:
    """Return `needed_bytes`, or less of a slow source: a power of two, so that later runs find it
    again.

    A text with less than is needed is taken whole, and so is the same subset for every budget.
    """
    needed_bytes = [n for n in needed_bytes if source.num_bytes is None or n < source.num_bytes]
    if source.bytes_per_second is None or max_seconds is None or not needed_bytes:
        return needed_bytes
    affordable = _affordable_bytes(max_seconds, source.bytes_per_second)
    return needed_bytes if needed_bytes[0] <= affordable else [affordable]


def _affordable_bytes(seconds: float, bytes_per_second: float) -> int:
    """Return what can be read of a slow source: a power of two."""
    return max(LEAST_BYTES, 1 << int(seconds * bytes_per_second).bit_length() - 1)


def _limits(
    params: DatasetParams, source: Source, needed_bytes: int | None
) -> tuple[JsonObject, Limits]:
    """Return the key of a subset in the store, and the limits that it is read within."""
    limits = Limits(
        max_documents=params.max_documents,
        max_bytes=min(filter(None, (params.max_bytes, needed_bytes)), default=None),
        max_validation_bytes=params.max_validation_bytes,
        validation_fraction=params.validation_fraction,
        drops_copies=params.duplicates == "drop",
    )

    choices = {
        "validation_split": params.validation_split,
        "text_column": params.text_column,
        "encoding": params.encoding,
        "train_split": params.train_split,
    }

    if params.mask:
        choices["mask"] = "true"

    if source.hub is not None or is_large(source, limits.max_bytes):
        choices["order"] = "seeded"

    return {
        "format": FORMAT,
        "digest": source.digest,
        "name": source.name,
    } | limits._asdict() | choices, limits


def open_subset(folder: Path) -> TextSubset:
    """Return the subset in a committed folder, its digests verified."""
    commit = open_commit(folder, KIND)
    return _describe(
        Stage(folder, folder.name, commit.meta, reused=True), notice=commit.meta["notice"]
    )


def _describe(stage: Stage, *, notice: str | None, download_seconds: float = 0.0) -> TextSubset:
    # A subset that an earlier version of LightLM made has no record.
    record = DataRecord.model_validate(stage.meta.get("record", {}))
    own = {"record": record, "notice": notice, "download_seconds": download_seconds}
    values = {
        name: value for name, value in stage.meta.items() if name in TextSubset.__dataclass_fields__
    } | own
    return TextSubset(
        folder=stage.folder, fingerprint=stage.fingerprint, reused=stage.reused, **values
    )


def describe_made(folder: Path, meta: JsonObject) -> TextSubset:
    """Return the subset that `meta` describes, made in a folder outside of the store."""
    return _describe(Stage(folder, folder.name, meta, reused=False), notice=None)


def describe_folder(folder: Path, params: DatasetParams, source: Source) -> TextSubset:
    """Return the subset of a source, made in a folder outside of the store."""
    _, limits = _limits(params, source, None)
    meta = _build(folder, params, source, limits)
    return replace(describe_made(folder, meta), notice=source.notice)


@dataclass
class _Builder:
    """Builds a subset; `source` is then what was read, with the seconds that it took to get it."""

    home: Path
    params: DatasetParams
    source: Source
    limits: Limits
    report: Callable[[str], None]

    def build(self, folder: Path) -> JsonObject:
        """Write both splits' documents into `folder`; return what the subset says of itself.

        Of a part of a data set more is read where copies leave too little of it.
        """
        whole, needed = self.source, self.limits.max_bytes
        meta: JsonObject = {}
        for times in TIMES_READ:
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                self.source = read_parts(
                    replace(whole, download_seconds=self.source.download_seconds),
                    needed and times * needed,
                    self.limits.max_validation_bytes,
                    keep_in_store(self.home, self.report)
                    if whole.hub
                    else keep_in_folder(Path(scratch)),
                    self.report,
                )
                meta = _build(folder, self.params, self.source, self.limits)
            if not self.source.is_part or meta["num_bytes"] >= SHORT * (needed or 0):
                break
        return meta


def _build(folder: Path, params: DatasetParams, source: Source, limits: Limits) -> JsonObject:
    """Write both splits' documents into `folder`; return what the subset says of itself."""
    built = build_subset(folder, params, source, limits)
    is_limited = limits.max_bytes is not None and source.is_plain_text
    return {
        "name": safe_name(source.name),
        "source": params.source if source.notice is None else source.name,
        "source_digest": source.short_digest,
        "num_documents": built.num_rows
        if source.total_rows is not None
        else built.record.documents,
        "total_documents": None if is_limited else source.total_rows,
        "num_bytes": built.record.train_bytes,
        "num_validation_documents": built.num_validation_pieces,
        "num_validation_bytes": built.record.validation_bytes,
        "validation_sha256": built.validation_sha256,
        "is_running_text": built.is_running_text,
        "record": built.record.model_dump(mode="json"),
        "notice": source.notice,
        "is_cut": source.is_part
        or (
            limits.max_bytes is not None
            and built.record.train_bytes + built.record.duplicate_bytes >= limits.max_bytes
        ),
        "source_bytes": source.num_bytes or source.about_bytes,
    }


def safe_name(name: str) -> str:
    """Return a name of letters, digits, dots and dashes, at most 40 long, for runs and files."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:40] or "text"
