"""Records of csv and tsv files: fields by line, quotes parsed, and never more lines in a row than
its quotes say.
"""

import csv
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from lightlm.data.characters.decoding import Encoding, RowCounts, iterate_lines
from lightlm.data.characters.file_checks import LONGEST_ROW_BYTES, format_long
from lightlm.errors import DatasetError

ONE_COLUMN = "\x1f"
"""What stands for the separator in a file of one column; the unit separator of ASCII, which texts
do not hold.
"""


PART_CHARACTERS = 1 << 20
"""Longest part of a line that is read at once."""

LONG_LINE = 1_000_000
MOST_FIELDS = 200_000
"""Separators in a line of more than LONG_LINE characters from which it is made to fill memory."""


class OpenQuote(Exception):
    """A quote that is never closed, or is closed by the quote of a later row; `line` is where it
    opened.

    `is_at_end` where no other quote followed up to the end of the lines.
    """

    def __init__(self, line: int, *, is_at_end: bool = False) -> None:
        super().__init__(line)
        self.line = line
        self.is_at_end = is_at_end


@dataclass(frozen=True)
class CsvFormat:
    """How the fields of a csv file are written; `separator` "" where a line is one field.

    `quoting` is "doubled" (RFC 4180), "backslash" or "none". `returns_end_rows` where lone carriage
    returns do.
    """

    separator: str
    quoting: str = "doubled"
    returns_end_rows: bool = False
    skips_spaces: bool = False


def iterate_parts(
    stream: BinaryIO, encoding: Encoding, counts: RowCounts, *, returns_end_rows: bool = False
) -> Iterator[str]:
    """Yield the text of a table's file in lines or parts of them; `counts` gets the bytes that were
    replaced, for lines are not rows.
    """
    inner = RowCounts()
    for part in iterate_lines(
        stream, encoding, inner, longest=PART_CHARACTERS, only_newline=not returns_end_rows
    ):
        if inner.replaced_bytes:
            counts.replaced_bytes += inner.replaced_bytes
            inner.replaced_bytes = 0
        yield part


def join_lines(lines: Iterable[str], name: str, returns_end_rows: bool) -> Iterator[str]:
    """Yield lines that end in LF, CRLF or, where they do, CR; put together what was cut elsewhere
    (U+2028, parts).

    Raises:
        DatasetError: a line is longer than a row may be.
    """
    ends = ("\n", "\r") if returns_end_rows else ("\n",)
    parts: list[str] = []
    length = 0
    number = 1

    for line in lines:
        if line.endswith(ends):
            yield "".join((*parts, line)) if parts else line
            parts.clear()
            length = 0
            number += 1
            continue
        parts.append(line)
        length += len(line)
        if length > LONGEST_ROW_BYTES:
            raise DatasetError(f"{name} line {number} is longer than {format_long(length)}")

    if parts:
        yield "".join(parts)


def split_records(
    lines: Iterable[str], form: CsvFormat, name: str
) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of its first line, fields) of each record; blank lines are left out.

    Raises:
        OpenQuote: a quote is not closed where its row ends.
        DatasetError: a row is longer than a row may be.
    """
    numbered = enumerate(lines, 1)
    separator = form.separator or ONE_COLUMN
    if form.quoting == "none":
        for number, line in numbered:
            if len(line) > LONG_LINE and line.count(separator) > MOST_FIELDS:
                raise DatasetError(
                    f"{name} line {number} is no row of a table: it has too many fields"
                )
            if (bare := strip_end(line)).strip(" "):
                yield number, bare.split(separator)
        return

    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    held: list[str] = []
    waiting: list[str] = []
    ended: list[bool] = []

    def feed() -> Iterator[str]:
        length = 0
        while True:
            if waiting:
                line = waiting.pop()
                length = 0
            else:
                _, line = next(numbered, (0, ""))
                if not line:
                    ended.append(True)
                    return
            held.append(line)
            length += len(line)
            if length > LONGEST_ROW_BYTES:
                raise OpenQuote(0)
            yield line

    escape = "\\" if form.quoting == "backslash" else None
    reader = csv.reader(
        feed(),
        delimiter=separator,
        strict=True,
        escapechar=escape,
        skipinitialspace=form.skips_spaces,
    )

    for number, line in numbered:
        if len(line) > LONG_LINE and line.count(separator) > MOST_FIELDS:
            raise DatasetError(
                f"{name} line {number} has {line.count(separator) + 1:,} fields: it is no table "
                "of texts"
            )
        if '"' not in line and (escape is None or escape not in line):
            if (bare := strip_end(line)).strip(" "):
                yield number, bare.split(separator)
            continue
        waiting.append(line)
        held.clear()
        try:
            fields = next(reader)
        except OpenQuote:
            fields = None
        except (csv.Error, StopIteration):
            fields = split_leniently(held[0], form) if len(held) == 1 else None
        if fields is None:
            raise OpenQuote(number + find_open_quote("".join(held), form), is_at_end=bool(ended))
        yield number, fields


def strip_end(line: str) -> str:
    """Return a line without its line end."""
    return (
        line[:-2] if line.endswith("\r\n") else line[:-1] if line.endswith(("\n", "\r")) else line
    )


def _field_pattern(form: CsvFormat) -> re.Pattern[str]:
    """Return the pattern of one field and its end; an inner quote that no separator follows is
    text.
    """
    end = rf"(?:{re.escape(form.separator or ONE_COLUMN)}|\r?\n?\Z)"
    inner = r'(?:[^"\\]|""|\\.|\\\Z)' if form.quoting == "backslash" else r'(?:[^"]|"")'
    return re.compile(
        rf' *"({inner}*+(?:"(?!{end}){inner}*+)*+)"({end})|((?!").*?)({end})', re.DOTALL
    )


def split_leniently(line: str, form: CsvFormat) -> list[str] | None:
    """Return the fields of one line whose quotes are not doubled inside of fields; None where a
    quote stays open.
    """
    pattern = _field_pattern(form)
    fields = []
    position = 0

    while position <= len(line):
        match = pattern.match(line, position)
        if match is None:
            return None
        quoted = match[1]
        fields.append(match[3] if quoted is None else quoted.replace('""', '"'))
        if (match[2] or match[4] or "") != (form.separator or ONE_COLUMN):
            return fields
        position = match.end()

    return fields


def find_open_quote(record: str, form: CsvFormat) -> int:
    """Return how many lines after the start of a torn record its open quote stands."""
    mark = re.escape(form.separator or ONE_COLUMN)
    strict = re.compile(rf'"(?:[^"]|"")*+"(?={mark}|\r?\n|\Z)|[^"{mark}\n][^{mark}\n]*')
    position = 0
    while position < len(record):
        match = strict.match(record, position)
        if match is None and record[position] == '"':
            break
        position = match.end() if match and match.end() > position else position + 1
    return record.count("\n", 0, position)
