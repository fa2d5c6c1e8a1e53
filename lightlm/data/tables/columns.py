"""Which column of a table holds the text: by how much text many rows hold, not by a first value."""

import difflib
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightlm.data.characters.decoding import Encoding
from lightlm.errors import DatasetError
from lightlm.json_object import JsonObject

SAMPLE_ROWS = 200
"""Rows that are looked at to choose a column; labels repeat and texts do not, which a hundred rows
show.
"""

SAMPLE_CHARACTERS = 1 << 25
"""Text that a sample holds at most; rows may be whole books."""

MOST_COLUMNS = 1000
"""Columns that are looked at; tables with more of them hold measurements."""

USUAL_COLUMNS = ("text", "content", "document", "body", "article", "story")
"""Names that decide between several columns of text, the first of them first."""

OTHER_USUAL_COLUMNS = (
    "review", "review_text", "review_body", "comment", "message", "post", "tweet", "passage",
    "paragraph", "sentence",
    "abstract", "description", "selftext", "poem", "lyrics", "code", "plot", "transcript",
    "maintext", "full_text",
)  # fmt: skip
"""Names that decide where just one of the columns of text has one of them."""

MINOR_SHARE = 0.25
"""Fraction of the largest column's text below which a column is a title or a name, not the text."""

KIND_SHARE = 0.9
"""Fraction of a column's values that must look like numbers, dates or links for the column to be of
that kind.
"""

KIND_CHARACTERS = 10_000
"""Start of a value that is looked at; a value may be a whole book."""

LABEL_SHARE = 0.2
"""Different values per row, at most, in a column of labels."""

LABEL_ROWS = 20
"""Rows from which repetition says something."""

LABEL_WORDS = 5
"""Mean number of words from which repeated values are texts that stand there twice, not labels."""

BAD_SHARE = 0.01
"""Fraction of broken rows from which a file is refused: it is something else than it seems."""

NUMBER = re.compile(
    r"[\s+\-$€£(]*\d[\d\s.,:/%'_()+-]*(?:[eE][+-]?\d+)?\s*[%€£]?|nan|none|null|n/?a|inf|-",
    re.IGNORECASE,
)
DATE = re.compile(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ,]+[\d:.]+)?\s*(Z|UTC|[AP]M|[+-]\d\d:?\d\d)?"
    r"|([A-Z][a-z]{2,8},? )?\d{1,2}\.? [A-Z][a-z]{2,8}\.? \d{2,4}(\W+[\d:]+.*)?"
    r"|([A-Z][a-z]{2,8},? )?[A-Z][a-z]{2,8}\.? \d{1,2}(st|nd|rd|th)?,?( \d{4})?(\W+[\d:]+.*)?",
    re.IGNORECASE,
)
LINK = re.compile(
    r"([a-z][a-z0-9+.-]*://|www\.)\S+|[^\s@]+@[^\s@]+\.\w+|(/|\w:\\|\./)\S*", re.IGNORECASE
)
LETTER = re.compile(r"[^\W\d_]")
ONE_WORD = re.compile(r"[\x21-\x7e]*")

EXAMPLE_CHARACTERS = 40
MOST_NAME_CHARACTERS = 100

PLAIN_SUFFIXES = (".csv", ".tsv", ".tab", ".psv", ".jsonl", ".ndjson", ".json")


@dataclass(frozen=True)
class TableShape:
    """How a table is read: what `inspect_table` decided, and what `read_rows` follows."""

    kind: str
    columns: tuple[str, ...]
    column: str
    template: str | None
    encoding: Encoding
    details: JsonObject = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    name: str = "the file"


@dataclass(frozen=True)
class Rating:
    """What the sampled values of a column look like; `characters` are per sampled row, empty rows
    too.
    """

    kind: str
    characters: float
    example: str


@dataclass
class BadRows:
    """Broken rows of a table, counted; more than a few are refused, with the first one's place."""

    name: str
    num_rows: int = 0
    num_bad: int = 0
    first: str = ""

    def add(self, why: str) -> None:
        """Count one broken row of those read so far.

        Raises:
            DatasetError: it is one of more than 1 % of the rows.
        """
        self.num_bad += 1
        self.first = self.first or why
        if self.num_bad > max(1, BAD_SHARE * self.num_rows):
            raise DatasetError(
                f"{self.name} {self.first}; {self.num_bad:,} of the first {self.num_rows:,} rows "
                "are broken: mend or remove them"
            )


def rate_column(values: Sequence[Any], num_rows: int) -> Rating:
    """Return what a column's values look like; `values` may leave out rows of the `num_rows` that
    lack the column.
    """
    present = [value for value in values if value is not None and value != ""]
    texts = [value for value in present if isinstance(value, str) and value.strip()]
    example = shorten(present[0]) if present else ""
    characters = sum(map(len, texts)) / max(1, num_rows)
    if len(texts) < 0.5 * len(present):
        nested = sum(isinstance(value, list | dict | bytes) for value in present)
        return Rating("nested" if nested >= 0.5 * len(present) else "number", 0.0, example)
    if not texts:
        return Rating("empty", 0.0, example)
    return Rating(_find_kind(texts), characters, example)


def _find_kind(texts: Sequence[str]) -> str:
    stripped = [text[:KIND_CHARACTERS].strip() for text in texts]
    for kind, pattern in (("number", NUMBER), ("date", DATE), ("link", LINK)):
        if _share(pattern.fullmatch(text[:100]) for text in stripped) >= KIND_SHARE:
            return kind

    if _share(LETTER.search(text[:1000]) for text in stripped) < 0.5:
        return "number"

    words = sum(len(text.split()) for text in stripped) / len(stripped)
    characters = sum(map(len, stripped)) / len(stripped)
    is_repeated = len(stripped) >= LABEL_ROWS and len(set(stripped)) <= LABEL_SHARE * len(stripped)
    if len(stripped) >= 3 and len(set(stripped)) == 1 and words < LABEL_WORDS:
        return "label"
    if is_repeated and words < LABEL_WORDS and characters < 60:
        return "label"

    return "id" if _share(ONE_WORD.fullmatch(text) for text in stripped) >= KIND_SHARE else "text"


def _share(matches: Iterable[Any]) -> float:
    found = [match is not None for match in matches]
    return sum(found) / max(1, len(found))


def take_sample(rows: Iterable[Any]) -> list[Any]:
    """Return the first rows, as many as tell what the columns hold and as memory should hold."""
    sample: list[Any] = []
    length = 0
    for row in rows:
        sample.append(row)
        length += _measure(row)
        if len(sample) >= SAMPLE_ROWS or length >= SAMPLE_CHARACTERS:
            break
    return sample


def _measure(value: Any, depth: int = 0) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict | list) and depth < 4:
        return sum(
            _measure(item, depth + 1)
            for item in (value.values() if isinstance(value, dict) else value)
        )
    return 8


def rate_rows(rows: Sequence[Mapping[str, Any]], named: str | None = None) -> dict[str, Rating]:
    """Return the rating of each column of sampled rows, in the order of their appearance; always of
    the named one.
    """
    seen = list(dict.fromkeys(name for row in rows for name in row))
    names = seen[:MOST_COLUMNS] + [name for name in seen[MOST_COLUMNS:] if name == named]
    return {name: rate_column([row.get(name) for row in rows], len(rows)) for name in names}


def choose_column(
    ratings: Mapping[str, Rating],
    name: str,
    named: str | None,
    nested: Sequence[str] = (),
    unreadable: Collection[str] = (),
) -> str:
    """Return the column of text: the one that is named, or the one that holds by far the most text.

    `nested` are dotted names of texts inside of objects, which may be named but are not chosen
    unasked; `unreadable` are columns that give no text even if they are named.

    Raises:
        DatasetError: no such column, no column of text, or several that could be meant; with the
            command to give.
    """
    if named is not None:
        return _find_named(ratings, name, named, nested)

    texts = {column: rating for column, rating in ratings.items() if rating.kind == "text"}
    if not texts:
        return _choose_least(ratings, name, nested, unreadable)

    most = max(rating.characters for rating in texts.values())
    texts = {
        column: rating
        for column, rating in texts.items()
        if rating.characters >= MINOR_SHARE * most
    }

    if len(texts) == 1:
        return next(iter(texts))

    chosen = _find_usual(texts)
    if chosen is None:
        raise DatasetError(
            f"{name} has {len(texts)} columns of text ({list_examples(texts)}); choose one: "
            f"{list_options(texts)}"
        )

    return chosen


def _find_named(ratings: Mapping[str, Rating], name: str, named: str, nested: Sequence[str]) -> str:
    if named in ratings or named in nested:
        return named

    columns = [*ratings, *nested]
    folded = {column.strip().casefold(): column for column in reversed(columns)}
    near = difflib.get_close_matches(named.strip().casefold(), folded, n=2, cutoff=0.6)
    hint = (
        f"did you mean {list_options(folded[match] for match in near)}?"
        if near
        else "name one of them"
    )

    raise DatasetError(
        f"{name} has no column {named!r}; its columns are {list_names(columns)}: {hint}"
    )


def _choose_least(
    ratings: Mapping[str, Rating], name: str, nested: Sequence[str], unreadable: Collection[str]
) -> str:
    """Return the column of a table whose rows hold single words or labels, where just one can be
    meant.
    """
    kinds = ("label", "id") if len(ratings) == 1 else ("id",)
    wordy = {
        column: rating
        for column, rating in ratings.items()
        if rating.kind in kinds or _is_usual(column, rating)
    }

    usual = [column for column, rating in wordy.items() if _is_usual(column, rating)]
    if len(usual) == 1 or len(wordy) == 1:
        return (usual or list(wordy))[0]
    if usual and (chosen := _find_usual({column: wordy[column] for column in usual})):
        return chosen

    # The rows below may hold text all the same.
    empty = [column for column, rating in ratings.items() if rating.kind == "empty"]
    named_so = [column for column in empty if column.strip().casefold() in USUAL_COLUMNS]
    if not wordy and (named_so or len(ratings) == len(empty) == 1):
        return (named_so or empty)[0]

    filled = [column for column, rating in ratings.items() if rating.kind != "empty"]
    offered = (
        list(wordy) or list(nested) or [column for column in filled if column not in unreadable]
    )

    if not filled:
        raise DatasetError(
            f"{name} holds no text: its rows are empty; give a data set with text in it"
        )

    if not offered:
        raise DatasetError(
            f"{name} has no column of text (columns: {list_examples(ratings)}); write the text of "
            "each row as a string under a name of its own, such as text"
        )

    raise DatasetError(
        f"{name} has no column of text (columns: {list_examples(ratings)}); "
        f"if one of them is meant all the same, name it: {list_options(offered)}"
    )


def _is_usual(column: str, rating: Rating) -> bool:
    is_named_so = column.strip().casefold() in (*USUAL_COLUMNS, *OTHER_USUAL_COLUMNS)
    return is_named_so and rating.kind in ("label", "id")


def _find_usual(texts: Mapping[str, Rating]) -> str | None:
    folded = {column.strip().casefold(): column for column in reversed(list(texts))}
    most = max(rating.characters for rating in texts.values())
    first = next((folded[usual] for usual in USUAL_COLUMNS if usual in folded), None)
    if first is not None and texts[first].characters >= most / 2:
        return first
    usual = [
        folded[column] for column in (*USUAL_COLUMNS, *OTHER_USUAL_COLUMNS) if column in folded
    ]
    return usual[0] if len(usual) == 1 else None


def shorten(value: Any, most: int = EXAMPLE_CHARACTERS) -> str:
    """Return the start of a value, on one line, for a message."""
    text = value if isinstance(value, str) else _show_value(value)
    text = " ".join(text[: 4 * most].split())
    text = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
    return text if len(text) <= most else text[: most - 3] + "..."


def _show_value(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, dict):
        return "{" + ", ".join(str(key) for key in list(value)[:8]) + "}"
    return (
        f"a list of {len(value):,}"
        if isinstance(value, list)
        else str(value)[: 4 * EXAMPLE_CHARACTERS]
    )


def show_line(name: str, number: int) -> str:
    """Return the command that shows a line of a file, for the end of a message; nothing for packed
    files.
    """
    is_plain = Path(name).is_file() and Path(name).suffix.lower() in PLAIN_SUFFIXES
    return f" (to see it: sed -n {number}p {shlex.quote(name)})" if is_plain else ""


def no_rows(name: str, where: str = "") -> DatasetError:
    """Return the error for a table without a row."""
    return DatasetError(
        f"{name} holds no text: it has no rows{where}; give a data set with text in it"
    )


def list_names(columns: Iterable[str]) -> str:
    """Return names of columns for a message."""
    return list_first([shorten(column) for column in columns], 20)


def list_examples(ratings: Mapping[str, Rating]) -> str:
    """Return columns with an example of each, for a message."""
    return list_first([f'{shorten(name)}: "{one.example}"' for name, one in ratings.items()], 8)


def list_first(items: Sequence[str], most: int) -> str:
    """Return `most` items for a message, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return (", ".join(items[:most]) or "none") + more


def list_options(columns: Iterable[str]) -> str:
    """Return the options that name columns, for a shell; names that no person would type are left
    out.
    """
    names = [
        column
        for column in columns
        if column.isprintable() and 0 < len(column) <= MOST_NAME_CHARACTERS
    ]
    options = (
        f"--text-column{'=' if name.startswith('-') else ' '}{shlex.quote(name)}"
        for name in names[:4]
    )
    return " or ".join(options) or "--text-column NAME"
