"""Parts of a data set that is larger than what is needed of it: enough text, from all over its
files, on the Hub or on this machine.

Files come in an order that the revision, or the data set's name, alone decides, and each gives its
share: groups of rows, lines at places, or a packed file's beginning. Which text is read depends on
that and on how much is needed, and not on the order of the rows.
"""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

from lightlm.data.files.rows import END_OF_TEXT_LINE, Readable, SourceFile
from lightlm.data.formats.packed_streams import unpack_stream
from lightlm.data.formats.packing import split_suffix
from lightlm.data.hub import sort_seeded
from lightlm.data.remote import HubUnreachable
from lightlm.data.source import WHOLE_BYTES, Source
from lightlm.data.storage import HubStorage, LocalStorage, Opened, Storage
from lightlm.data.tables.parquet_rows import choose_rows, inspect_parquet, open_parquet
from lightlm.errors import DatasetError
from lightlm.json_object import JsonObject
from lightlm.quantities import format_bytes
from lightlm.store.lock import ignore
from lightlm.store.stage import fingerprint, open_stage

KIND = "hub-parts"
FORMAT = 1

ENOUGH = 1.3
"""Bytes that are read for each byte that is needed: some are held out, and copies are left out."""

LEAST_SHARE = 1 << 20
"""Bytes of text that a file gives at least; opening it costs its footer and some requests."""

PLACES = 16
LEAST_PLACE = 1 << 19
"""Places of a file that are read at most, and bytes of text that each gives at least."""

MOST_AHEAD = 1 << 23
"""Bytes of one range of a file that is read from start to end."""

LONGEST_PIECE = 1 << 20
"""Bytes of a line that are copied at once."""

CONNECTIONS = 4
"""Files that are read at the same time."""

ROW_LINES = (".jsonl", ".ndjson")
"""Tables in which every line is a row, wherever in the file it stands."""

Keep = Callable[[JsonObject, Callable[[Path], JsonObject]], tuple[Path, JsonObject]]
"""Gives the folder and the facts of the part with a key: made before, or now."""


@dataclass(frozen=True)
class Part:
    """A part of a file as a file here: its bytes of text, the fraction of the file that it is, and
    the bytes that were asked for.
    """

    file: SourceFile
    num_bytes: int
    fraction: float
    read_bytes: int
    columns: list[str]


def keep_in_store(home: Path, report: Callable[[str], None] = ignore) -> Keep:
    """Return what keeps parts in the store: one that is whole is never read again."""

    def keep(key: JsonObject, build: Callable[[Path], JsonObject]) -> tuple[Path, JsonObject]:
        stage = open_stage(home, KIND, key, build, key["share"], report=report)
        return stage.folder, stage.meta

    return keep


def keep_in_folder(folder: Path) -> Keep:
    """Return what keeps parts in a folder that somebody else removes."""

    def keep(key: JsonObject, build: Callable[[Path], JsonObject]) -> tuple[Path, JsonObject]:
        own = folder / fingerprint(KIND, key)
        own.mkdir()
        return own, build(own)

    return keep


def read_parts(
    source: Source,
    max_bytes: int | None,
    max_validation_bytes: int,
    keep: Keep,
    report: Callable[[str], None] = ignore,
) -> Source:
    """Return a source whose files are here: enough for `max_bytes` of training text, and for
    `max_validation_bytes` of a split of its own. Without a limit, or where it is most of the text,
    all files are downloaded.

    Raises:
        DatasetError: the Hub broke off in every try. What came whole is kept, and nothing else.
    """
    if source.hub is None and not is_large(source, max_bytes):
        return source

    started = time.monotonic()
    storage = LocalStorage(source.name) if source.hub is None else HubStorage(source.hub)
    reader = _Reader(storage, keep, report)
    splits: dict[str, list[Readable]] = {}
    notes = list(source.notes)
    about = source.about_bytes
    is_part = False

    try:
        for split, files in source.splits.items():
            limit = max_bytes if split == "train" else max_validation_bytes
            own = [file for file in files if isinstance(file, SourceFile)]
            total = sum(file.input.size for file in own)
            if limit is None or _is_mostly_needed(own, limit):
                splits[split] = [storage.take_whole(file) for file in own]
                continue

            parts = reader.read(own, round(ENOUGH * limit))
            splits[split] = [part.file for part in parts if part.num_bytes]
            is_part = is_part or (split == "train" and not _are_whole(parts, own))
            read = sum(part.read_bytes or part.num_bytes for part in parts)
            notes.append(
                f"{split}: read {format_bytes(read)} of {format_bytes(total)} in a seeded order "
                f"({len(parts):,} of {len(own):,} files)"
            )
            if split == "train" and source.hub is not None:
                about = _estimate_bytes(parts, total)
    except HubUnreachable as reason:
        raise DatasetError(
            f"{storage.name} could not be read from the Hub ({reason}); start again: what came "
            "whole is kept"
        ) from None

    return replace(
        source,
        splits=splits,
        notes=notes,
        about_bytes=about,
        is_part=is_part,
        hub=None,
        download_seconds=source.download_seconds
        + (time.monotonic() - started if source.hub is not None else 0.0),
    )


def is_large(source: Source, max_bytes: int | None) -> bool:
    """Return whether a source is so large that only parts of its files are read for `max_bytes` of
    training text.
    """
    files = [file for file in source.splits["train"] if isinstance(file, SourceFile)]
    if max_bytes is None or sum(file.input.size for file in files) <= WHOLE_BYTES:
        return False
    return not _is_mostly_needed(files, max_bytes)


def _is_mostly_needed(files: Sequence[SourceFile], limit: int) -> bool:
    return sum(file.about_bytes for file in files) <= 2 * ENOUGH * limit


@dataclass
class _Reader:
    """Reads files of a data set: parts of them until there is enough, or whole."""

    storage: Storage
    keep: Keep
    report: Callable[[str], None]

    def read(self, files: Sequence[SourceFile], wanted: int) -> list[Part]:
        """Return parts with `wanted` bytes of text, or one of each file, in seeded order.

        The first is read alone: it tells which columns hold text.
        """
        sized = {file.input.name: file for file in files if self.storage.has_size(file)}
        order = [sized[name] for name in sort_seeded(self.storage.seed, sized)]
        total = sum(file.input.size for file in order)
        shares = [
            min(wanted, max(LEAST_SHARE, -(-wanted * file.input.size // total))) for file in order
        ]
        self.report(
            f"Reading {format_bytes(wanted)} of text of {self.storage.name}, from all over it "
            f"({format_bytes(sum(file.input.size for file in files))} in {len(files):,} files)"
        )
        todo = list(zip(order, shares, strict=True))
        parts: list[Part] = []
        with ThreadPoolExecutor(CONNECTIONS) as pool, self.storage.open_bar(wanted) as bar:
            while todo and (missing := wanted - sum(part.num_bytes for part in parts)) > 0:
                sums = accumulate(share for _, share in todo)
                number = 1 + sum(size < missing for size in sums) if parts else 1
                batch = todo[:number]
                todo = todo[number:]
                read = partial(self._read_part, columns=parts[0].columns if parts else None)
                for part in pool.map(read, *zip(*batch, strict=True)):
                    parts.append(part)
                    if bar is not None:
                        bar.update(min(part.num_bytes, wanted - bar.n))
        return parts

    def _read_part(self, file: SourceFile, share: int, columns: list[str] | None) -> Part:
        """Return the part of a file with about `share` bytes of text."""
        if self.storage.is_read_whole(file, share):
            size = file.input.size
            return Part(self.storage.take_whole(file), file.about_bytes, 1.0, size, columns or [])

        key = {
            "format": FORMAT,
            **self.storage.name_file(file),
            "share": share,
            "column": file.column,
            "encoding": file.encoding,
        }

        def build(folder: Path) -> JsonObject:
            remote = self.storage.open_file(file)
            copy = _copy_groups if file.input.suffix == ".parquet" else _copy_lines
            facts = copy(folder / _name_part(file), file, remote, share, columns)
            return {"read_bytes": remote.num_bytes, "columns": []} | facts

        folder, facts = self.keep(key, build)
        here = replace(file.input, path=folder / _name_part(file), is_part=True)
        here = replace(file, input=here)
        return Part(here, **facts)


def _name_part(file: SourceFile) -> str:
    return f"part{file.input.suffix}"


def _copy_groups(
    path: Path, file: SourceFile, remote: Opened, share: int, columns: list[str] | None
) -> JsonObject:
    """Copy the columns with text from groups of rows in seeded order, from each its first rows."""
    import pyarrow.parquet as pq

    name = file.input.name
    size = 0
    num_rows = 0
    writer: pq.ParquetWriter | None = None
    with open_parquet(remote.open, name, _ahead(share)) as table:
        if columns is None or not set(columns) <= set(table.schema_arrow.names):
            shape = inspect_parquet(remote.open, name, file.encoding, file.column)
            columns = list(dict.fromkeys((*shape.details["read"], *shape.details["also"])))

        groups = range(table.metadata.num_row_groups)
        place = max(LEAST_PLACE, share // max(1, min(PLACES, len(groups))))
        rows = choose_rows(table, columns, name)
        try:
            for group in map(int, sort_seeded(name, map(str, groups))):
                for batch in _read_group(table, rows, group, columns, min(place, share - size)):
                    writer = writer or pq.ParquetWriter(path, batch.schema)
                    writer.write_batch(batch)
                    size += batch.nbytes
                    num_rows += batch.num_rows
                if size >= share:
                    break
        finally:
            if writer is not None:
                writer.close()
        fraction = num_rows / max(1, table.metadata.num_rows)

    return {"num_bytes": size, "fraction": fraction, "columns": columns}


def _read_group(table: Any, rows: int, group: int, columns: list[str], most: int) -> Iterator[Any]:
    """Yield the first batches of a group of rows, of `most` bytes together or little more."""
    size = 0
    for batch in table.iter_batches(rows, row_groups=[group], columns=columns):
        yield batch
        size += batch.nbytes
        if size >= most:
            return


def _copy_lines(
    path: Path, file: SourceFile, remote: Opened, share: int, _: list[str] | None
) -> JsonObject:
    """Copy whole lines from places all over a file; of one that is packed, or whose rows may span
    lines, from its beginning.
    """
    name = file.input.name
    packing = split_suffix(Path(name).name)[1]
    is_lines = not packing and (not file.input.is_table or file.input.suffix in ROW_LINES)
    number = max(1, min(PLACES, share // LEAST_PLACE))
    if not is_lines or share >= remote.size:
        number = 1

    size = 0
    place = 0
    with path.open("wb") as out:
        for index in range(number):
            raw: Any = remote.open()
            stream = io.BufferedReader(raw, _ahead(share // number))
            if index:
                stream.seek(index * remote.size // number - 1)
                _read_line(stream)
                out.write(b"" if file.input.is_table else f"{END_OF_TEXT_LINE}\n".encode())
            unpacked = unpack_stream(stream, packing, name) if packing else stream
            is_quoted = file.input.kind == "csv"
            size += _copy_some(unpacked, out, share // number, is_quoted=is_quoted)
            place = raw.tell()
            unpacked.close()

    fraction = min(1.0, (place if packing else size) / remote.size)
    return {"num_bytes": size, "fraction": fraction}


def _copy_some(stream: BinaryIO, out: BinaryIO, most: int, *, is_quoted: bool) -> int:
    """Copy `most` bytes and the rest of the line, or of the record of a csv; return how many."""
    size = 0
    quotes = 0
    while line := stream.readline(LONGEST_PIECE):
        out.write(line)
        size += len(line)
        quotes += line.count(b'"') if is_quoted else 0
        is_end = line.endswith(b"\n") and quotes % 2 == 0
        if size >= most and (is_end or size >= 2 * most + LONGEST_PIECE):
            break
    return size


def _read_line(stream: BinaryIO) -> None:
    while (line := stream.readline(LONGEST_PIECE)) and not line.endswith(b"\n"):
        pass


def _ahead(num_bytes: int) -> int:
    """Return how much of a file is asked for at once where `num_bytes` of text are wanted of it."""
    return min(MOST_AHEAD, max(LEAST_PLACE // 2, num_bytes // PLACES))


def _are_whole(parts: Sequence[Part], files: Sequence[SourceFile]) -> bool:
    return len(parts) == len(files) and all(part.fraction >= 1 for part in parts)


def _estimate_bytes(parts: Sequence[Part], total: int) -> int:
    """Return about how many bytes of text `total` bytes of files hold, as the parts have it."""
    files = sum(part.fraction * part.file.input.size for part in parts)
    return round(total * sum(part.num_bytes for part in parts) / max(1.0, files))
