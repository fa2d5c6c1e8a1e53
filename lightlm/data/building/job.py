"""The job of building a corpus: which files, in which tasks, with which params, under which name.

All of it follows from the data set and the params, never from the number of workers.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from pydantic import BaseModel, ConfigDict

from lightlm.data.files.inputs import ABOUT, InputFile, Inputs, find_inputs, split_of
from lightlm.data.files.local_path import find_local_path, is_url
from lightlm.data.files.record import LeftOutRecord
from lightlm.data.files.rows import SourceFile
from lightlm.data.files.suffixes import CODE_SUFFIXES, SUFFIXES, TABLE_KINDS
from lightlm.data.formats.packing import ARCHIVE_SUFFIXES, open_unpacked, split_suffix
from lightlm.data.hub import find_hub_files, list_hub_files, open_remote
from lightlm.data.passages import Piece
from lightlm.data.reading import Reading
from lightlm.data.remote import HubUnreachable, RemoteFile, open_ranges
from lightlm.data.source import Source, explain_unreachable, open_files
from lightlm.errors import DatasetError
from lightlm.json_object import JsonObject
from lightlm.params import DatasetParams, Params, TokenizerParams
from lightlm.store.remote import RemoteFolder

FORMAT = 1

TASK_BYTES = 1 << 29
"""Bytes of text that a task reads, about: minutes of work that a dead worker loses at most. They
are on the disk for that time, and their signatures take 130 MB of memory.
"""

AHEAD_BYTES = 1 << 23
"""Bytes of one range of a remote file."""

VOCAB_SIZE = 32_768
"""Entries of a tokenizer that is trained for a corpus, unless params say otherwise: no budget of a
run decides here.
"""

LIMITS = ("max_documents", "max_bytes", "others")
"""Params of a data set that a corpus does not keep."""


class FileEntry(BaseModel):
    """A file of the data set: where it is (a path, or an address), and how it is read."""

    model_config = ConfigDict(frozen=True)

    place: str
    name: str
    suffix: str
    size: int
    split: str
    kept_by: str
    """disk, url or hub: what reads it."""


class Job(BaseModel):
    """What to build, complete: each task is the indices of neighboring training files."""

    model_config = ConfigDict(frozen=True)

    out: str
    name: str
    source: str
    fingerprint: str
    about_bytes: int
    held_out_by: str
    is_named: bool
    train: list[FileEntry]
    validation: list[FileEntry]
    tasks: list[list[int]]
    left_out: list[LeftOutRecord]
    dataset: DatasetParams
    tokenizer: TokenizerParams

    @property
    def folder(self) -> RemoteFolder:
        """Return where the corpus will be."""
        return RemoteFolder(self.out)

    @property
    def work(self) -> RemoteFolder:
        """Return where tasks leave what later ones need."""
        return self.folder / f"work/{self.fingerprint}"

    def open_task(self, rank: int) -> Reading:
        """Return a reading of a task's files."""
        return self._open([self.train[index] for index in self.tasks[rank]])

    def open_held_out(self) -> Reading:
        """Return a reading of the split that is held out by name; empty where there is none."""
        return self._open(self.validation)

    def _open(self, entries: list[FileEntry]) -> Reading:
        files = [
            SourceFile(_open_entry(entry), self.dataset.text_column, self.dataset.encoding)
            for entry in entries
        ]
        source = Source(
            self.name,
            self.fingerprint,
            {"train": list(files)},
            None,
            about_bytes=self.about_bytes,
            is_named=self.is_named,
        )
        return Reading(list(files), source, is_masked=self.dataset.mask)


@dataclass(frozen=True)
class RemoteInput(InputFile):
    """A file elsewhere, read by ranges as it is needed."""

    address: str = ""
    is_hub: bool = False

    def open(self) -> BinaryIO:
        """Return a stream of the file's bytes, decompressed."""
        file = RemoteFile if self.is_hub else _UrlFile
        raw = open_ranges(file(self.address, self.name, self.size))
        stream = io.BufferedReader(cast(io.RawIOBase, raw), AHEAD_BYTES)
        return open_unpacked(cast(BinaryIO, stream), self.name)


@dataclass(frozen=True)
class _UrlFile:
    """A file at a URL."""

    address: str
    name: str
    size: int

    def fetch(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to `stop`."""
        folder, _, name = self.address.rpartition("/")
        return RemoteFolder(folder).read(name, start, stop)


def plan_job(params: Params, out: str) -> Job:
    """Return the job that makes the corpus of `params` at the URL `out`.

    Raises:
        DatasetError: no such data set, or params that limit it.
    """
    dataset = params.dataset
    for name in LIMITS:
        if getattr(dataset, name):
            raise DatasetError(
                f"a corpus is made of one whole data set; leave dataset.{name} as it is, or name "
                "fewer files"
            )

    name, inputs, stamps = _list_inputs(dataset)
    source = open_files(dataset, inputs, name, digest="unread")
    splits = {
        split: [_describe(cast(SourceFile, file).input) for file in files]
        for split, files in source.splits.items()
    }
    key = {
        "format": FORMAT,
        "files": {
            split: [[one.name, one.size, stamps.get(one.name)] for one in files]
            for split, files in splits.items()
        },
        "dataset": dataset.model_dump(mode="json", exclude={"source", "hub_timeout_seconds"}),
        "tokenizer": params.tokenizer.model_dump(mode="json"),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    about = source.about_bytes or 0
    return Job(
        out=out,
        name=source.name,
        source=dataset.source,
        fingerprint=digest[:16],
        about_bytes=about,
        held_out_by=source.held_out_by,
        is_named=source.is_named,
        train=splits["train"],
        validation=splits.get("validation", []),
        tasks=list(_group(source.splits["train"])),
        left_out=[LeftOutRecord(path=one.path, reason=one.reason) for one in source.left_out],
        dataset=dataset,
        tokenizer=params.tokenizer,
    )


def read_pieces(reading: Reading) -> Iterator[tuple[int, Piece]]:
    """Return the pieces of a reading with their numbers, the same at every reading."""
    return enumerate(reading.pieces())


def describe_read(reading: Reading, documents: list[int], num_bytes: list[int]) -> list[dict]:
    """Return a record of each file, as JSON; those that could not be read have an `error`."""
    rows = []
    for index, (file, tally) in enumerate(zip(reading.files, reading.tallies, strict=True)):
        tally.documents = documents[index]
        tally.num_bytes = num_bytes[index]
        rows.append(file.describe(tally).model_dump(mode="json") | {"error": tally.error})
    return rows


def _list_inputs(dataset: DatasetParams) -> tuple[str, Inputs, dict[str, str]]:
    """Return a data set's name and files, and what tells each file from a changed one."""
    if is_url(dataset.source):
        return _list_url(dataset.source)

    path = find_local_path(dataset.source)
    if path is None:
        return _list_hub(dataset)

    inputs = find_inputs(path)
    packed = [file for file in inputs.files if file.member is not None]
    if packed:
        raise DatasetError(
            f"{packed[0].path} is an archive; unpack it: the tasks of a corpus read files"
        )
    inputs.files = [replace(file, is_part=True) for file in inputs.files]
    stamps = {file.name: str(file.path.stat().st_mtime_ns) for file in inputs.files}
    return path.stem if path.is_file() else path.name, inputs, stamps


def _list_url(url: str) -> tuple[str, Inputs, dict[str, str]]:
    folder = RemoteFolder(url)
    inputs = Inputs()
    stamps = {}
    for name, size, stamp in folder.list_files():
        path = Path(name)
        suffix, packing = split_suffix(path.name)
        suffix = suffix.lower()
        if suffix not in (*SUFFIXES, *CODE_SUFFIXES) or packing in ARCHIVE_SUFFIXES:
            inputs.leave_out(name, "no known format of text, or an archive")
        elif not size or path.name.startswith(".") or path.name.upper().startswith(ABOUT):
            inputs.leave_out(name, "hidden, empty, or about the data, by its name")
        else:
            stamps[name] = stamp
            split = split_of(name, is_table=suffix in TABLE_KINDS)
            address = f"{folder.url}/{name}"
            file = RemoteInput(path, name, suffix, size, split, is_part=True, address=address)
            inputs.files.append(file)
    if not inputs.files:
        raise DatasetError(f"{url} holds no file that can be read; give a folder of text")
    return folder.url.rpartition("/")[2], inputs, stamps


def _list_hub(dataset: DatasetParams) -> tuple[str, Inputs, dict[str, str]]:
    try:
        found = find_hub_files(dataset)
    except HubUnreachable as reason:
        raise DatasetError(explain_unreachable(dataset.source, str(reason))) from None
    files = [file for split in sorted(found.splits) for file in list_hub_files(found, split)]
    inputs = Inputs(is_named=True)
    inputs.files = [
        RemoteInput(**vars(file) | {"address": open_remote(found, file.name).url, "is_hub": True})
        for file in files
        if file.size
    ]
    name = "-".join(filter(None, [dataset.source.rpartition("/")[2], dataset.config]))
    return name, inputs, dict.fromkeys((file.name for file in files), found.commit)


def _describe(file: InputFile) -> FileEntry:
    is_remote = isinstance(file, RemoteInput)
    return FileEntry(
        place=file.address if is_remote else str(file.path),
        name=file.name,
        suffix=file.suffix,
        size=file.size,
        split=file.split,
        kept_by="disk" if not is_remote else "hub" if file.is_hub else "url",
    )


def _open_entry(entry: FileEntry) -> InputFile:
    values: JsonObject = entry.model_dump(exclude={"place", "kept_by"}) | {"is_part": True}
    if entry.kept_by == "disk":
        return InputFile(path=Path(entry.place), **values)
    return RemoteInput(
        path=Path(entry.name), address=entry.place, is_hub=entry.kept_by == "hub", **values
    )


def _group(files: list) -> Iterator[list[int]]:
    """Yield neighboring files of about TASK_BYTES of text."""
    task: list[int] = []
    size = 0
    for index, file in enumerate(files):
        task.append(index)
        size += file.about_bytes
        if size >= TASK_BYTES:
            yield task
            task = []
            size = 0
    if task:
        yield task
