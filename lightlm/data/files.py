"""Rows of text from files: parquet, jsonl, csv, txt, md; the text column found or named.

Owns how a file becomes rows. Invalid UTF-8 is replaced and counted, never dropped in silence. Files are anybody's:
memory is bounded whatever they hold, and what cannot be read is refused by name.
"""

import csv
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightlm.data.file_checks import LONGEST_ROW_BYTES, choose_rows, explain_unreadable, refuse_no_text, say_long
from lightlm.errors import DatasetError

TEXT_SUFFIXES = (".txt", ".md", ".text", ".markdown")
TABLE_SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".json", ".csv")
SUFFIXES = TABLE_SUFFIXES + TEXT_SUFFIXES

USUAL_COLUMNS = ("text", "content", "document", "body", "article", "story")
"""Names that decide between several columns of strings, in this order."""

LINE_PART_BYTES = 1 << 20
"""Of a plain text's line that are read at once: a text without line ends is as long as its file."""

COLUMN_SAMPLE = 100
"""JSON rows looked at to learn the columns."""

SPLIT_WORDS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
"""What a file's or folder's name says of the split that it belongs to."""


@dataclass
class RowCounts:
    """What was met while reading: rows without text, rows with bytes that are not UTF-8."""

    empty: int = 0
    invalid: int = 0


@dataclass(frozen=True)
class FileSet:
    """Files of one split, read in order; `column` None for plain text."""

    files: tuple[Path, ...]
    column: str | None = None
    counts: RowCounts = field(default_factory=RowCounts, compare=False)

    @property
    def is_plain_text(self) -> bool:
        """Whether the files are plain text, not tables."""
        return self.files[0].suffix.lower() in TEXT_SUFFIXES

    def rows(self) -> Iterator[str]:
        """Yield the text of each row, empty ones too; of plain text each line with its line end."""
        for path in self.files:
            for value in _read_rows(path, self.column):
                if isinstance(value, bytes):
                    text = value.decode("utf-8", "replace")
                    self.counts.invalid += text.encode("utf-8") != value
                elif value is None:
                    text = ""
                else:
                    text = value if isinstance(value, str) else str(value)
                    if not text.isascii() and _has_surrogates(text):
                        text = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
                        self.counts.invalid += 1
                self.counts.empty += not text.strip()
                yield text

    def count_rows(self) -> int | None:
        """Return how many rows there are, where the files say so without being read."""
        if all(path.suffix.lower() == ".parquet" for path in self.files):
            return sum(_open_parquet(path).metadata.num_rows for path in self.files)
        if all(path.suffix.lower() in (".jsonl", ".ndjson") for path in self.files):
            return sum(_count_lines(path) for path in self.files)
        return None


def find_files(path: Path) -> dict[str, tuple[Path, ...]]:
    """Return the files under `path` by split ("train", "validation", "test"); a file without a word is training.

    Raises:
        DatasetError: nothing there that can be read.
    """
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise DatasetError(
                f"{path} ends in {path.suffix or 'nothing'}; give a file that ends in one of {', '.join(SUFFIXES)}"
            )
        return {"train": (path,)}
    if path.exists() and not path.is_dir():
        raise DatasetError(f"{path} is a pipe or a device, which cannot be read twice; give a file or a folder of text")
    found = sorted(
        p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in SUFFIXES and not _is_hidden(p, path)
    )
    tables = [p for p in found if p.suffix.lower() in TABLE_SUFFIXES]
    kinds = {p.suffix.lower() for p in tables}
    if len(kinds) > 1:
        raise DatasetError(f"{path} mixes {', '.join(sorted(kinds))} files; give a folder with one kind, or one file")
    chosen = tables or [p for p in found if not p.name.upper().startswith(("README", "LICENSE"))]
    if not chosen:
        raise DatasetError(f"{path} holds no file that ends in one of {', '.join(SUFFIXES)}; give a folder that does")
    splits: dict[str, list[Path]] = {}
    for file in chosen:
        splits.setdefault(_split_of(file, path), []).append(file)
    if "train" not in splits:
        raise DatasetError(f"{path} has only {', '.join(splits)} files; name at least one train-*.parquet or the like")
    return {split: tuple(files) for split, files in splits.items()}


def choose_column(path: Path, named: str | None) -> str | None:
    """Return the column of text of a table: the one named, the only one of strings, or one with a usual name.

    Raises:
        DatasetError: no such column, or several that could be meant; lists them.
    """
    refuse_no_text(path)
    if path.suffix.lower() in TEXT_SUFFIXES:
        return None
    columns = _list_columns(path)
    if not columns:
        raise DatasetError(f"{path.name} holds no text: it has no rows; give a data set with text in it")
    if named is not None:
        if named not in columns:
            raise DatasetError(
                f"{path.name} has no column {named!r}; its columns are {', '.join(columns) or 'none'}: "
                "give one of them as dataset.text_column"
            )
        if columns[named] is None:
            raise DatasetError(f"the column {named!r} of {path.name} holds lists or objects; name a column of text")
        return named
    texts = [name for name, is_text in columns.items() if is_text]
    for usual in USUAL_COLUMNS:
        if usual in texts:
            return usual
    if len(texts) == 1:
        return texts[0]
    raise DatasetError(
        f"{path.name} has {'no column' if not texts else f'{len(texts)} columns'} of text "
        f"(columns: {', '.join(columns) or 'none'}); name one: --text-column NAME"
    )


def hash_files(files: Sequence[Path]) -> str:
    """Return the SHA-256 of the contents of files, in order."""
    digest = hashlib.sha256()
    for path in files:
        with explain_unreadable(path), path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _read_rows(path: Path, column: str | None) -> Iterator[Any]:
    refuse_no_text(path)
    suffix = path.suffix.lower()
    with explain_unreadable(path):
        if suffix in TEXT_SUFFIXES:
            yield from _read_parts(path)
        elif suffix == ".parquet":
            file = _open_parquet(path)
            for batch in file.iter_batches(choose_rows(path, file, column), columns=[column]):
                yield from batch.column(0).to_pylist()
        elif suffix == ".csv":
            yield from (row.get(column or "") for row in _read_csv(path))
        else:
            yield from (row.get(column or "") for row in _read_json(path))


def _read_parts(path: Path) -> Iterator[bytes]:
    """Yield the lines of a plain text; a long one in parts, never cut inside a character."""
    with path.open("rb") as file:
        rest = b""
        for index, part in enumerate(iter(lambda: file.readline(LINE_PART_BYTES), b"")):
            part = rest + (part.removeprefix(b"\xef\xbb\xbf") if index == 0 else part)
            end = len(part) if part.endswith(b"\n") else _last_whole(part)
            rest = part[end:]
            if part[:end]:
                yield part[:end]
        if rest:
            yield rest


def _last_whole(part: bytes) -> int:
    """Return the end of the last character that is whole, of bytes that may end inside one."""
    for back in range(1, min(4, len(part)) + 1):
        byte = part[-back]
        if byte & 0xC0 != 0x80:
            length = 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(part) - back if length > back else len(part)
    return len(part)


def _read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a table of lines, whole."""
    with path.open("rb") as file:
        for index, line in enumerate(iter(lambda: file.readline(LONGEST_ROW_BYTES + 1), b"")):
            if len(line) > LONGEST_ROW_BYTES:
                raise DatasetError(f"{path} line {index + 1} is longer than {say_long(len(line))}")
            yield line.removeprefix(b"\xef\xbb\xbf") if index == 0 else line


def _read_csv(path: Path) -> Iterator[dict[str, str | None]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        # NUL bytes end a field for the csv module; they are text like any other control character.
        yield from csv.DictReader(line.replace("\0", "\N{SYMBOL FOR NULL}") for line in file)


def _read_json(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix.lower() == ".json":
        try:
            values = json.loads(path.read_bytes().decode("utf-8-sig", "replace"))
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{path} is not JSON ({error}); give one array of objects, or a jsonl file") from None
        if not isinstance(values, list):
            raise DatasetError(f"{path} holds no array of objects; give one, or a jsonl file with an object a line")
        yield from (value if isinstance(value, dict) else {} for value in values)
        return
    for number, line in enumerate(_read_lines(path), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode("utf-8", "replace"))
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{path} line {number} is not JSON ({error}); mend or remove the line") from None
        if not isinstance(value, dict):
            raise DatasetError(f'{path} line {number} is no JSON object; wanted an object a line, as {{"text": ...}}')
        yield value


def _list_columns(path: Path) -> dict[str, bool | None]:
    """Return the columns of a table, and whether each holds text; None where it holds lists or objects."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        import pyarrow as pa

        def is_text(kind: Any) -> bool | None:
            if pa.types.is_dictionary(kind):
                return is_text(kind.value_type)
            if pa.types.is_nested(kind):
                return None
            return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)

        return {column.name: is_text(column.type) for column in _open_parquet(path).schema_arrow}
    if suffix == ".csv":
        with explain_unreadable(path):
            first = next(_read_csv(path), None)
        return {} if first is None else {name: not _is_number(value) for name, value in first.items() if name}
    columns: dict[str, bool | None] = {}
    with explain_unreadable(path):
        for index, row in enumerate(_read_json(path)):
            for name, value in row.items():
                holds_text = None if isinstance(value, list | dict) else isinstance(value, str)
                columns[name] = columns.get(name, holds_text) or holds_text
            if index >= COLUMN_SAMPLE:
                break
    return columns


def _open_parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is not a readable parquet file ({error}); download or write it again") from None


def _count_lines(path: Path) -> int:
    with explain_unreadable(path):
        return sum(1 for line in _read_lines(path) if line.strip())


def _split_of(file: Path, root: Path) -> str:
    words = re.split(r"[^a-z]+", file.relative_to(root).as_posix().lower())
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), "train")


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _is_number(value: str | None) -> bool:
    try:
        float(value or "")
    except ValueError:
        return False
    return True
