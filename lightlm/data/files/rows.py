"""Rows of text from files: each file by its own format, encoding and column, with a record of what
was met.

A row is a string; None ends a document. The rows of a plain text are its lines, and a document ends
where the file does, or at a line that is exactly <|endoftext|>. The rows of a table are documents.
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from itertools import islice
from pathlib import Path

from lightlm.data.characters.decoding import RowCounts, find_encoding, iterate_lines
from lightlm.data.characters.file_checks import explain_unreadable
from lightlm.data.files.inputs import InputFile
from lightlm.data.files.local_path import PYTHON_DOCS
from lightlm.data.files.record import SourceRecord
from lightlm.data.formats.documents import extract_documents, find_document_encoding
from lightlm.data.formats.packing import split_suffix
from lightlm.data.tables.tables import TableShape, count_rows, inspect_table, read_rows
from lightlm.system import count_cores

END_OF_TEXT_LINE = "<|endoftext|>"
"""A line that ends a document in TinyStories and in GPT-2's corpora; blanks around it
are allowed.
"""

LINE_PART = 1 << 20
"""Characters of a plain text's line that are read at once: a text without line ends is as long as
its file.
"""

PACKED_RATIO = 3
"""Bytes of text for each byte of a packed file, about."""

LINE_SAMPLE = 1000
"""Rows of a table that are looked at to tell lines of a running text from documents."""

LINE_SHARE = 0.9
"""Fraction of those that must end in a line end: then rows are lines (WikiText's are, stories' are
not).
"""

SETTLED_NANOSECONDS = 2_000_000_000
"""Age of a file's last change from which the next one is sure to have another time."""

MOST_REMEMBERED = 4096
"""Files whose layout and digest this process remembers."""

HASHED_BYTES = 1 << 26
"""Bytes of a file that one core hashes."""

READ_BYTES = 1 << 20

Rows = Iterator[str | None]

Stamp = tuple[int, ...]
"""What tells a file from any other, and from itself before or after a change."""


@dataclass
class Tally:
    """What one reading of a file met; `error` is why its rows ended before they began."""

    counts: RowCounts = field(default_factory=RowCounts)
    encoding: str = "utf-8"
    is_guessed: bool = False
    documents: int = 0
    num_bytes: int = 0
    borders: int = 0
    error: str = ""


@dataclass(frozen=True)
class SourceFile:
    """A file that is read: `column` and `encoding` as a person named them, None where they are to
    be found.
    """

    input: InputFile
    column: str | None = None
    encoding: str | None = None

    @cached_property
    def shape(self) -> TableShape | None:
        """Return how a table is laid out and which column is read; None for what is no table.

        Raises:
            DatasetError: no column of text, or several that could be meant.
        """
        if not self.input.is_table:
            return None
        with explain_unreadable(self.input.name):
            return inspect_table(
                self.input.open,
                self.input.suffix,
                self.input.name,
                column=self.column,
                encoding=self.encoding,
            )

    @cached_property
    def is_running_text(self) -> bool:
        """Return whether the rows are lines of one text, to be joined as they stand."""
        if self.shape is None:
            return self.input.kind != "document"
        looked = islice(
            filter(str.strip, read_rows(self.input.open, self.shape, RowCounts())), LINE_SAMPLE
        )
        looks = [is_line(row) for row in looked]
        return bool(looks) and sum(looks) >= LINE_SHARE * len(looks)

    @property
    def about_bytes(self) -> int:
        """Return about how many bytes of text there are."""
        return self.input.size * (PACKED_RATIO if self.input.is_packed else 1)

    @property
    def is_divisible(self) -> bool:
        """Return whether a part of the file, its beginning or groups of its rows, can be read."""
        is_packed_table = self.input.suffix == ".parquet" and bool(
            split_suffix(self.input.path.name)[1]
        )
        return self.input.kind != "document" and not is_packed_table

    @property
    def has_byte_lines(self) -> bool:
        """Return whether a line ends where a byte says so, as in no wide encoding."""
        found = find_encoding(self.input.open, self.input.name, self.encoding)
        return not found.name.startswith(("utf-16", "utf-32"))

    def rows(self, tally: Tally) -> Rows:
        """Yield the rows, None after the last of each document.

        Raises:
            DatasetError: the file cannot be read as what it is.
        """
        with explain_unreadable(self.input.name):
            if self.shape is not None:
                yield from self._read_table(self.shape, tally)
            elif self.input.kind == "document":
                yield from self._read_documents(tally)
            else:
                yield from self._read_text(tally)

    @cached_property
    def num_rows(self) -> int | None:
        """Return how many rows a table has, where it says so without being read."""
        if self.input.is_part or self.shape is None:
            return None
        return count_rows(self.input.open, self.shape)

    def describe(self, tally: Tally) -> SourceRecord:
        """Return the record of one reading."""
        shape = self.shape if not tally.error and self.input.is_table else None
        notes = list(shape.notes) if shape is not None else []
        # A part has such lines also where two places of its file meet.
        if tally.borders and not self.input.is_part:
            notes.append(
                f"{tally.borders:,} lines that are exactly {END_OF_TEXT_LINE} end documents"
            )

        if tally.is_guessed:
            notes.append(f"{self.input.name} is read as {tally.encoding}")

        return SourceRecord(
            path=self.input.name,
            kind=self._name_kind(shape),
            split=self.input.split,
            encoding=tally.encoding,
            column=shape.column if shape is not None else None,
            documents=tally.documents,
            bytes=tally.num_bytes,
            used=tally.documents > 0,
            rows=tally.counts.rows,
            empty_rows=0 if self._has_lines(shape) else tally.counts.empty,
            bad_rows=tally.counts.bad_rows,
            replaced_bytes=tally.counts.replaced_bytes,
            notes=notes,
        )

    def _has_lines(self, shape: TableShape | None) -> bool:
        """Return whether the rows are lines, whose empty ones are part of the text."""
        return shape is not None and self.is_running_text

    def _name_kind(self, shape: TableShape | None) -> str:
        if shape is not None:
            return shape.kind
        return (
            self.input.suffix.lstrip(".")
            if self.input.is_table or self.input.kind == "document"
            else "text"
        )

    def _read_table(self, shape: TableShape, tally: Tally) -> Rows:
        tally.encoding = shape.encoding.name
        tally.is_guessed = shape.encoding.found_by == "guess"
        ends = not self.is_running_text
        for row in read_rows(self.input.open, shape, tally.counts):
            yield row
            if ends:
                yield None
        yield None

    def _read_documents(self, tally: Tally) -> Rows:
        encoding = find_document_encoding(
            self.input.open, self.input.suffix, self.input.name, self.encoding
        )
        tally.encoding = encoding.name
        tally.is_guessed = encoding.found_by == "guess"

        for document in extract_documents(
            self.input.open,
            self.input.suffix,
            self.input.name,
            encoding=encoding,
            counts=tally.counts,
        ):
            tally.counts.rows += 1
            tally.counts.empty += not document.strip()
            yield document
            yield None

    def _read_text(self, tally: Tally) -> Rows:
        encoding = find_encoding(self.input.open, self.input.name, self.encoding)
        tally.encoding = encoding.name
        tally.is_guessed = encoding.found_by == "guess"
        with self.input.open() as stream:
            for line in iterate_lines(stream, encoding, tally.counts, longest=LINE_PART):
                if END_OF_TEXT_LINE in line and line.strip() == END_OF_TEXT_LINE:
                    tally.borders += 1
                    yield None
                else:
                    yield line
        yield None


class PythonDocs:
    """The built-in corpus as one input."""

    is_running_text = False

    def rows(self, tally: Tally) -> Rows:
        """Yield the prose of each module as a document."""
        from lightlm.data.files.python_docs import read_python_docs

        for text in read_python_docs():
            tally.counts.rows += 1
            if text:
                yield text
                yield None

    def describe(self, tally: Tally) -> SourceRecord:
        """Return the record of one reading."""
        return SourceRecord(
            path=PYTHON_DOCS,
            kind="built-in",
            split="train",
            encoding="utf-8",
            documents=tally.documents,
            bytes=tally.num_bytes,
            used=True,
            rows=tally.counts.rows,
        )


Readable = SourceFile | PythonDocs
"""What gives rows: a file, or the built-in corpus."""


def is_line(row: str) -> bool:
    """Return whether a row is one line with its line end."""
    return row.endswith("\n") and "\n" not in row[:-1]


def open_source_file(file: InputFile, column: str | None, encoding: str | None) -> SourceFile:
    """Return a file that is read, with what this process found out about it before.

    A command checks a data set before it reads it: a table's columns are found once.
    """
    opened = SourceFile(file, column, encoding)
    return opened if file.is_part else _remember_file(opened, _stamp(file.path))


def hash_files(files: Sequence[InputFile]) -> str:
    """Return the SHA-256 of the contents of files on disk, in order; of an archive once."""
    digest = hashlib.sha256()
    for path in dict.fromkeys(file.path for file in files):
        digest.update(_hash_file(path, _stamp(path)))
    return digest.hexdigest()


def _stamp(path: Path) -> Stamp:
    with explain_unreadable(path):
        found = path.stat()
    now = time.time_ns()
    is_settled = max(found.st_mtime_ns, found.st_ctime_ns) < now - SETTLED_NANOSECONDS
    known = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    return known if is_settled else (*known, now)


@lru_cache(MOST_REMEMBERED)
def _remember_file(file: SourceFile, _: Stamp) -> SourceFile:
    return file


@lru_cache(MOST_REMEMBERED)
def _hash_file(path: Path, _: Stamp) -> bytes:
    """Return the SHA-256 of a file; of a large one that of the SHA-256 of its pieces, which all
    cores compute.
    """
    with explain_unreadable(path):
        size = path.stat().st_size
        if size <= HASHED_BYTES:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        with ThreadPoolExecutor(count_cores()) as pool:
            pieces = pool.map(partial(_hash_piece, path), range(0, size, HASHED_BYTES))
            return hashlib.sha256(b"".join(pieces)).digest()


def _hash_piece(path: Path, start: int) -> bytes:
    digest = hashlib.sha256()
    left = HASHED_BYTES
    with path.open("rb") as file:
        file.seek(start)
        while left and (block := file.read(min(left, READ_BYTES))):
            digest.update(block)
            left -= len(block)
    return digest.digest()
