"""Rows of JSON files, however they lie: a value a line, an array, an array under a key, values one
after another.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, BinaryIO

import numpy as np

from lightlm.data.characters.decoding import Encoding, Opener, RowCounts
from lightlm.data.tables.chat import flatten_chat
from lightlm.data.tables.columns import (
    SAMPLE_ROWS,
    BadRows,
    TableShape,
    no_rows,
    rate_column,
    take_sample,
)
from lightlm.data.tables.csv_rows import PART_CHARACTERS, iterate_parts, join_lines, strip_end
from lightlm.data.tables.json_stream import BrokenValue, JsonStream, TornEnd
from lightlm.data.tables.records import are_records, choose_text, make_reader, name_fields
from lightlm.errors import DatasetError

LINES_SUFFIXES = (".jsonl", ".ndjson", ".jsonlines")
LEAST_TEXTS = 20
"""Members of an object that are texts, from which they are rows by their ids, not columns of one
row.
"""

WALKED_CHARACTERS = 1 << 26
"""Text of an object's members that is looked through for the rows; those that lie behind are not
found.
"""

COUNTED_BYTES = 1 << 20
"""Bytes in which lines are counted at a time."""

BLANKS = " \t\r\n\ufeff"

Layout = tuple[str, str | None]
"""How rows lie ("lines", "array", "key", "members", "values") and the key."""


def inspect_json(
    open_input: Opener, suffix: str, name: str, encoding: Encoding, column: str | None
) -> TableShape:
    """Return how the rows of a JSON file lie and what gives each its text.

    Raises:
        DatasetError: no JSON, no rows, no such column, or several that could be meant.
    """
    layout = find_layout(open_input, suffix, name, encoding)
    scratch = RowCounts()
    values = iterate_values(open_input, layout, name, encoding, scratch, BadRows(name))
    sample = take_sample(value for _, value in values)
    if not sample and scratch.bad_rows:
        raise refuse_broken(name, "it ends inside of its first row")

    if not sample:
        raise no_rows(name)

    details = {"layout": layout[0], "key": layout[1]}
    shape = choose_text(
        sample, "jsonl" if layout[0] == "lines" else "json", name, encoding, column, details
    )
    notes = []
    if layout[0] == "key":
        notes.append(f'The rows are those under "{layout[1]}"; other keys are not read.')

    if layout[0] == "members":
        notes.append("The rows are the members of one object.")
    if scratch.bad_rows:
        notes.append("Broken rows or a torn last one are left out and counted.")

    return replace(shape, notes=(*notes, *shape.notes))


def read_json(
    open_input: Opener, shape: TableShape, counts: RowCounts, bad: BadRows
) -> Iterator[str]:
    """Yield the text of each row.

    Raises:
        DatasetError: too many broken rows, or a row that is too long.
    """
    details = shape.details
    read = make_reader(shape, counts, bad)

    layout = details["layout"], details["key"]
    for place, value in iterate_values(open_input, layout, shape.name, shape.encoding, counts, bad):
        yield read(name_fields(value) if details["rows_are_lists"] else value, place)


def count_json(open_input: Opener, shape: TableShape) -> int | None:
    """Return how many lines with something in them a file of JSON lines has; None for wide
    encodings.
    """
    if shape.encoding.name.startswith(("utf-16", "utf-32")):
        return None
    with open_input() as stream:
        return count_lines(stream)


def count_lines(stream: BinaryIO) -> int:
    """Return how many lines have more than white space: 1 GB takes a core a second."""
    number = 0
    is_counted = False  # whether the line that goes on has something already
    for block in iter(partial(stream.read, COUNTED_BYTES), b""):
        letters = np.frombuffer(block, dtype=np.uint8)
        starts = np.concatenate(([0], np.flatnonzero(letters == ord("\n")) + 1))
        is_text = np.append(letters, ord(" "))[starts] > ord(" ")
        for index in np.flatnonzero(~is_text).tolist():
            stop = starts[index + 1] if index + 1 < len(starts) else len(block)
            is_text[index] = bool(block[starts[index] : stop].strip())
        number += int(is_text.sum()) - (is_counted and bool(is_text[0]))
        is_counted = bool(is_text[-1]) or (len(starts) == 1 and is_counted)
    return number


def find_layout(open_input: Opener, suffix: str, name: str, encoding: Encoding) -> Layout:
    """Return how the rows of a JSON file lie.

    Raises:
        DatasetError: no JSON, or none with rows.
    """
    with open_input() as stream:
        parts = iterate_parts(stream, encoding, RowCounts())
        is_lines = _are_lines((part for part in parts if part.strip(BLANKS)), suffix)

    if is_lines is None:
        raise no_rows(name)
    if is_lines:
        return "lines", None

    with open_input() as stream:
        values = JsonStream(iterate_parts(stream, encoding, RowCounts()), name)
        try:
            return _walk(values)
        except TornEnd:
            return "values", None
        except BrokenValue as error:
            raise refuse_broken(name, str(error)) from None


def _are_lines(parts: Iterator[str], suffix: str) -> bool | None:
    """Return whether each line is a value; None of an empty file."""
    first = next(parts, "").strip(BLANKS)
    if not first:
        return None
    if len(first) >= PART_CHARACTERS - 2:
        return suffix in LINES_SUFFIXES and not first.startswith("[")

    try:
        value = json.loads(first, strict=False)
    except (ValueError, RecursionError):
        # "[" or "{" alone begins a value of several lines; values between carriage returns follow
        # one another.
        return (
            "\r" not in first
            and suffix in LINES_SUFFIXES
            and first not in ("[", "{")
            and not first.startswith("[{")
        )

    # One value alone: the rows may be its elements or members.
    return next(parts, None) is not None and (
        not _is_table(value) or flatten_chat(value) is not None
    )


def _is_table(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)
    )


def _walk(stream: JsonStream) -> Layout:
    """Return where the rows are of a file whose first value goes over several lines, or is all of
    it.
    """
    if stream.peek() == "[":
        return "array", None
    if stream.peek() != "{":
        return "values", None

    members = Members()
    try:
        is_early = members.read(stream)
        if not is_early and stream.peek():
            return "values", None
    except TornEnd:
        members.num_members += 1

    return members.choose()


class Members:
    """What lies under the keys of an object, and how much text each member's rows hold."""

    def __init__(self) -> None:
        self.texts: dict[str, float] = {}
        self.own_text = 0.0
        self.num_objects = 0
        self.num_texts = 0
        self.num_members = 0
        self.is_chat = False

    def read(self, stream: JsonStream) -> bool:
        """Read all members; return whether the rows were found long before the end."""
        for key in stream.members():
            if stream.peek() == "[":
                if self._read_array(stream, key):
                    return True
            else:
                self._add_value(key, stream.decode())
            self.num_members += 1
        return False

    def _read_array(self, stream: JsonStream, key: str) -> bool:
        sample: list[Any] = []
        try:
            for element in stream.elements():
                if len(sample) < SAMPLE_ROWS:
                    sample.append(element)
                elif stream.num_read > WALKED_CHARACTERS and _weigh(sample) > self.own_text:
                    return True
        finally:
            self.is_chat = self.is_chat or flatten_chat(sample) is not None
            self.texts[key] = _weigh(sample)
        return False

    def _add_value(self, key: str, value: Any) -> None:
        if isinstance(value, str):
            self.own_text += len(value)
            self.num_texts += 1
        elif isinstance(value, Mapping) and value:
            self.num_objects += any(
                isinstance(inside, str | list | Mapping) for inside in value.values()
            )
            if all(name.isdigit() for name in value):
                self.texts[key] = _weigh(list(islice(value.values(), SAMPLE_ROWS)))

    def choose(self) -> Layout:
        """Return where the rows are."""
        best = max(self.texts, key=lambda key: self.texts[key], default=None)
        if not self.is_chat and best is not None and self.texts[best] > self.own_text:
            return "key", best
        are_rows = self.num_objects >= 2 and self.num_objects >= self.num_members - 1
        are_rows = are_rows or (
            self.num_texts >= LEAST_TEXTS and self.num_texts >= self.num_members - 1
        )
        return ("members", None) if are_rows else ("values", None)


def _weigh(rows: list[Any]) -> float:
    """Return how many characters of text sampled rows hold, 0 of rows that are neither objects nor
    texts.
    """
    if rows and are_records(rows):
        rows = [name_fields(row) for row in rows]
    if sum(isinstance(row, str | Mapping) for row in rows) <= 0.5 * len(rows):
        return 0.0

    columns = {name for row in rows if isinstance(row, Mapping) for name in row}
    strings = [row for row in rows if isinstance(row, str)]
    cells = [[row.get(name) for row in rows if isinstance(row, Mapping)] for name in columns]
    nested = sum(
        len(json.dumps(cell))
        for column in cells
        for cell in column
        if isinstance(cell, list | Mapping)
    )

    ratings = [rate_column(column, 1) for column in (strings, *cells)]
    return (
        sum(rating.characters for rating in ratings if rating.kind in ("text", "id", "label"))
        + nested
    )


def iterate_values(
    open_input: Opener,
    layout: Layout,
    name: str,
    encoding: Encoding,
    counts: RowCounts,
    bad: BadRows,
) -> Iterator[tuple[str, Any]]:
    """Yield (place, value) of each row; a torn end is left out and counted, other broken rows up to
    1 %.

    Raises:
        DatasetError: more broken rows than that, or a row that is too long.
    """
    kind, key = layout
    with open_input() as stream:
        if kind == "lines":
            yield from _iterate_line_values(stream, name, encoding, counts, bad)
            return
        values = JsonStream(iterate_parts(stream, encoding, counts), name)
        try:
            for value in _iterate_stream(values, kind, key):
                bad.num_rows += 1
                yield f"row {bad.num_rows}", value
        except TornEnd:
            counts.bad_rows += 1
        except BrokenValue as error:
            raise refuse_broken(name, str(error)) from None


def _iterate_stream(stream: JsonStream, kind: str, key: str | None) -> Iterator[Any]:
    if kind == "array":
        # Pages of an export stand one after the other, an array each.
        while stream.peek() == "[":
            yield from stream.elements()
    elif kind == "values":
        while stream.peek():
            yield stream.decode()
    else:
        for member in stream.members():
            if kind == "members":
                yield stream.decode()
            elif member == key and stream.peek() == "[":
                yield from stream.elements()
                return
            elif member == key:
                value = stream.decode()
                yield from value.values() if isinstance(value, Mapping) else (value,)
                return
            elif stream.peek() == "[":
                for _ in stream.elements():
                    pass
            else:
                stream.decode()


def _iterate_line_values(
    stream: BinaryIO, name: str, encoding: Encoding, counts: RowCounts, bad: BadRows
) -> Iterator[tuple[str, Any]]:
    torn = None
    decoder = json.JSONDecoder(strict=False)
    parts = iterate_parts(stream, encoding, counts)
    lines = join_lines(parts, name, returns_end_rows=False)
    for number, line in enumerate(lines, 1):
        if not line.strip(BLANKS):
            continue
        if torn is not None:
            bad.add(torn)
            torn = None
        bad.num_rows += 1
        try:
            value = decoder.decode(line.removeprefix("\ufeff"))
        except (ValueError, RecursionError) as error:
            why = (
                "nested too deeply"
                if isinstance(error, RecursionError)
                else str(error).partition(";")[0]
            )
            torn = f"line {number} is not JSON ({why}) and begins {strip_end(line)[:40]!r}"
            counts.bad_rows += 1
            continue
        yield f"line {number}", value

    if torn is not None and bad.num_rows == 1:
        raise refuse_broken(name, torn)


def refuse_broken(name: str, why: str) -> DatasetError:
    """Return the error for a file that is no JSON."""
    return DatasetError(
        f'{name} is no readable JSON ({why}); give an object a line, as {{"text": "..."}}, or one '
        "array of them"
    )
