"""Rows that are objects: which column or template gives each its text, learned from many rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightlm.data.characters.decoding import Encoding, RowCounts, mend_surrogates
from lightlm.data.tables.chat import (
    CHAT_COLUMNS,
    count_prose,
    find_template,
    flatten_chat,
    flatten_pair,
    flatten_value,
    list_nested,
    look_up,
)
from lightlm.data.tables.columns import (
    MINOR_SHARE,
    OTHER_USUAL_COLUMNS,
    USUAL_COLUMNS,
    BadRows,
    Rating,
    TableShape,
    choose_column,
    list_examples,
    list_options,
    rate_rows,
    shorten,
)
from lightlm.errors import DatasetError
from lightlm.json_object import JsonObject

OBJECT_SHARE = 0.01
"""Fraction of a column's values that may be objects before a person is asked."""


def choose_text(
    rows: Sequence[Any],
    kind: str,
    name: str,
    encoding: Encoding,
    column: str | None,
    details: Mapping[str, Any],
) -> TableShape:
    """Return the shape of a table of objects, lists or strings by a sample of its rows.

    Raises:
        DatasetError: no text, no such column, or several that could be meant; with the command to
            give.
    """
    is_listed = are_records(rows)
    details = {**details, "is_named": column is not None, "also": [], "rows_are_lists": is_listed}
    objects = [name_fields(row) for row in rows if isinstance(row, list)] if is_listed else []
    objects = objects or [row for row in rows if isinstance(row, Mapping)]
    if not objects:
        return _choose_plain(rows, kind, name, encoding, column, details)

    ratings = rate_rows(objects, column)
    nested = list_nested(objects)
    notes = ["The rows are lists: their columns are numbered from 0."] if is_listed else []
    found = find_template(objects, ratings, column)

    if found is not None:
        template, chosen = found
        notes.append(NOTES[template].format(column=shorten(chosen, 100)))
    else:
        template = None
        chosen = choose_column(ratings, name, column, nested, _find_unreadable(objects, ratings))
        if column is None:
            _refuse_minor(objects, ratings, chosen, name)
        also = [] if column is not None else _find_others(objects, ratings, chosen)
        details["also"] = also
        if also:
            notes.append(f"Rows without {shorten(chosen)} give the text of {', '.join(also)}.")
        _refuse_objects(objects, chosen, name, nested, is_named=column is not None)

    if len(objects) < len(rows):
        notes.append(f"{len(rows) - len(objects):,} of {len(rows):,} sampled rows are no objects.")

    return TableShape(kind, tuple(ratings), chosen, template, encoding, details, tuple(notes), name)


def are_records(rows: Sequence[Any]) -> bool:
    """Return whether rows are lists of as many fields each, as in a table, not lists of
    sentences.
    """
    lengths = {len(row) for row in rows if isinstance(row, list)}
    is_flat = all(
        not isinstance(item, list | dict) for row in rows if isinstance(row, list) for item in row
    )
    return (
        len(lengths) == 1
        and min(lengths) > 1
        and is_flat
        and all(isinstance(row, list) for row in rows)
    )


def name_fields(row: Any) -> Any:
    """Return a list as an object whose names are numbers, anything else as it is."""
    return {str(index): value for index, value in enumerate(row)} if isinstance(row, list) else row


def _choose_plain(
    rows: Sequence[Any],
    kind: str,
    name: str,
    encoding: Encoding,
    column: str | None,
    details: JsonObject,
) -> TableShape:
    texts = [text for row in rows if isinstance(row, str | list) and (text := flatten_value(row))]
    if not texts or len(texts) < 0.5 * len(rows):
        example = next((type(row).__name__ for row in rows if not isinstance(row, str)), "nothing")
        raise DatasetError(
            f"{name} holds no rows of text, only {len(rows):,} values (the first: {example}); "
            "give objects, as "
            '{"text": "..."}, or strings'
        )

    if column not in (None, "text", "0"):
        raise DatasetError(
            f"{name} holds strings, not objects, so it has no column {column!r}: leave "
            "--text-column out"
        )

    is_chat = all(flatten_chat(row) is not None for row in rows)
    note = NOTES["chat"] if is_chat else "The rows are strings: each is one document."
    return TableShape(kind, ("text",), "text", None, encoding, details, (note,), name)


def _find_unreadable(rows: Sequence[Mapping[str, Any]], ratings: Mapping[str, Rating]) -> list[str]:
    """Return the columns that hold nothing but objects, bytes and lists without a text of their
    own.
    """
    return [
        column
        for column, rating in ratings.items()
        if rating.kind == "nested"
        and all(flatten_value(row.get(column)) in (None, "") for row in rows)
    ]


def _refuse_minor(
    rows: Sequence[Mapping[str, Any]], ratings: Mapping[str, Rating], column: str, name: str
) -> None:
    """Refuse to take titles where the text stands inside of lists of objects, which no name
    reaches.

    Raises:
        DatasetError: with the option that takes the titles all the same.
    """
    for other in ratings:
        inside = sum(
            count_prose(row.get(other)) for row in rows if isinstance(row.get(other), list)
        )
        if ratings[column].characters * len(rows) < MINOR_SHARE * inside:
            raise DatasetError(
                f"{name}: most of the text stands in {shorten(other)}, inside of lists of "
                "objects; write it as a text "
                f"of its own, or take the column {shorten(column)} alone: {list_options([column])}"
            )


def _find_others(
    rows: Sequence[Mapping[str, Any]], ratings: Mapping[str, Rating], chosen: str
) -> list[str]:
    """Return columns with a usual name whose text stands only where the chosen column is
    missing.
    """
    usual = (*USUAL_COLUMNS, *OTHER_USUAL_COLUMNS)
    others = [column for column in ratings if column != chosen and column.casefold() in usual]
    missing = [row for row in rows if chosen not in row]
    return [
        column
        for column in others
        if any(isinstance(row.get(column), str) for row in missing)
        and not any(row.get(column) for row in rows if row.get(chosen))
    ]


def _refuse_objects(
    rows: Sequence[Mapping[str, Any]],
    column: str,
    name: str,
    nested: Sequence[str],
    *,
    is_named: bool,
) -> None:
    values = [value for row in rows if (value := look_up(row, column)) not in (None, "")]
    objects = sum(flatten_value(value) is None for value in values)
    if (
        not objects
        or objects <= max(1, OBJECT_SHARE * len(values)) < len(values)
        or (is_named and objects < len(values))
    ):
        return

    inside = [dotted for dotted in nested if dotted.startswith(f"{column}.")]
    ways = [list_options(inside)] if inside else []
    if objects < len(values):
        ways.append(f"{list_options([column])} (leaves these rows out)")

    advice = (
        f"choose one: {' or '.join(ways)}"
        if ways
        else f"name another column of {list_examples(rate_rows(rows))}"
    )
    raise DatasetError(
        f"{name}: {objects:,} of {len(values):,} sampled rows hold an object or a list, no text, "
        f"in {shorten(column)}; {advice}"
    )


NOTES = {
    "chat": "Chat records: one document per conversation, with paragraphs 'User: ...' and "
    "'Assistant: ...'.",
    "pair": "Records of a request and a reply ({column}): one document each, 'User: ...' and "
    "'Assistant: ...'.",
    "list": "The column {column} holds lists of strings: one document per row, a line per string.",
}
"""Template -> what a person reads of it."""


def make_reader(shape: TableShape, counts: RowCounts, bad: BadRows) -> Callable[[Any, str], str]:
    """Return a function of a row and its place that gives the row's text, "" where there is none.

    The shape's `also` are columns that are read where its column is missing. Objects without a text
    of their own are counted as bad rows; where the column was not named by a person, more than a
    few of them are refused.
    """
    column, template = shape.column, shape.template
    also, is_named = shape.details["also"], shape.details["is_named"]

    def read(row: Any, place: str) -> str:
        counts.rows += 1
        # Most rows have a text under the very name.
        plain = row.get(column) if template is None and type(row) is dict else None
        text = plain if type(plain) is str and plain else _read_row(row, column, template, also)

        if text is None:
            counts.bad_rows += 1
            if not is_named:
                bad.add(
                    f"{place} holds an object or a list where text is wanted (column "
                    f"{shorten(column)}; to leave such "
                    f"rows out, name the column: {list_options([column])})"
                )
            text = ""

        if counts.replaced_bytes and "\ufffd" in text:
            counts.bad_rows += 1

        text = mend_surrogates(text, counts)
        counts.empty += not text.strip()
        return text

    return read


def _read_row(row: Any, column: str, template: str | None, also: Sequence[str]) -> str | None:
    if not isinstance(row, Mapping):
        return flatten_value(row)
    if template == "pair" and (text := flatten_pair(row)) is not None:
        return text

    for name in (column, *also):
        if (value := look_up(row, name)) not in (None, ""):
            return flatten_value(value)

    if template is None or column in row:
        return ""

    # Rows of other kinds between chat records: a chat under another name, a pair, or a plain text.
    for name in CHAT_COLUMNS:
        if (text := flatten_chat(row.get(name))) is not None:
            return text

    plain = row.get("text")
    return flatten_pair(row) or (plain if isinstance(plain, str) else "")
