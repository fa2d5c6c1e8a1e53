"""How a csv file is written, found by many of its rows: separator, quoting, line ends, and whether it has a header."""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lightlm.data.columns import OTHER_USUAL_COLUMNS, USUAL_COLUMNS, rate_column, show_line
from lightlm.data.csv_rows import ONE_COLUMN, CsvFormat, OpenQuote, split_records, strip_end
from lightlm.errors import DatasetError

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
SUFFIX_SEPARATORS = {".tsv": "\t", ".tab": "\t", ".psv": "|"}

WANTED_FIT = 0.9
"""Fraction of rows that must have the fields of the first one for a separator to be believed."""

SURPLUS_FIT = 0.8
"""What a row with more fields counts: its text may hold the separator."""

FEW_QUOTES = 3
"""Fields that begin with a quote and do not end with one, from which quotes in a file with commas may be text."""

HEADER_CHARACTERS = 64
HEADER_WORDS = 6
"""More than that in a first row's field is text, not a name."""

COMMON_NAMES = frozenset((
    *USUAL_COLUMNS, *OTHER_USUAL_COLUMNS, "id", "label", "labels", "title", "author", "name", "date", "url", "score",
    "rating", "stars", "class", "category", "sentiment", "target", "summary", "question", "answer", "instruction",
    "output", "input", "prompt", "response", "completion", "subject", "source", "lang", "language", "number", "index",
    "headline", "highlights", "word", "words", "line", "user", "item", "feedback", "quote", "notes", "note",
))  # fmt: skip
"""Names that columns often have, in lower case."""

SEP_LINE = re.compile(r"sep=(.)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Trial:
    """How well a format fits the sampled rows."""

    form: CsvFormat
    fit: float
    is_exact: bool
    typed: float
    spaced: float
    num_fields: int


def find_format(lines: Sequence[str], suffix: str, is_whole: bool, returns_end_rows: bool) -> CsvFormat:
    """Return how the fields of the sampled lines are written.

    Raises:
        DatasetError: a quote is not closed in any way of reading the lines.
    """
    if (first := SEP_LINE.fullmatch(strip_end(lines[0]))) and first[1] in SEPARATORS:
        candidates = [first[1]]
        lines_before = lines[:1]
        lines = lines[1:]
    else:
        candidates = list(SEPARATORS)
        lines_before = lines[:0]
    sample = "".join(lines)
    trials = []
    torn: list[OpenQuote] = []
    for separator in candidates:
        if separator not in sample:
            continue
        for form in _list_formats(separator, sample, returns_end_rows):
            try:
                trial = _try_format(lines, form, is_whole)
            except OpenQuote as error:
                torn.append(OpenQuote(error.line + len(lines_before)))
                continue
            if trial is not None:
                trials.append(trial)
    wanted = SUFFIX_SEPARATORS.get(suffix)
    good = [trial for trial in trials if trial.fit >= WANTED_FIT or len(candidates) == 1]
    if not good:
        if torn:
            raise torn[0]
        separator = candidates[0] if len(candidates) == 1 else ""
        return CsvFormat(separator, _find_plain_quoting(lines, is_whole, returns_end_rows), returns_end_rows)
    voice = _ask_sniffer(sample)
    return max(
        good,
        key=lambda trial: (
            trial.form.separator == wanted,
            trial.is_exact,
            trial.typed - trial.spaced,
            trial.form.separator == voice,
            trial.fit,
        ),
    ).form


def _list_formats(separator: str, sample: str, returns_end_rows: bool) -> list[CsvFormat]:
    if '"' not in sample:
        return [CsvFormat(separator, "doubled", returns_end_rows)]
    forms = [CsvFormat(separator, "doubled", returns_end_rows)]
    if f'{separator} "' in sample:
        forms.append(CsvFormat(separator, "doubled", returns_end_rows, skips_spaces=True))
    if '\\"' in sample:
        forms.append(CsvFormat(separator, "backslash", returns_end_rows))
    return [*forms, CsvFormat(separator, "none", returns_end_rows)]


def _try_format(lines: Sequence[str], form: CsvFormat, is_whole: bool) -> Trial | None:
    rows: list[list[str]] = []
    try:
        rows.extend(fields for _, fields in split_records(lines, form, ""))
    except OpenQuote as error:
        # The sample may end inside of a row.
        if is_whole or not error.is_at_end:
            if len(rows) >= 1 and len(rows[0]) > 1 and _are_enclosed(lines, form.separator):
                raise
            return None
    if form.quoting == "none" and _are_enclosed(lines, form.separator):
        return None
    if len(rows) < 1 or len(rows[0]) < 2:
        return None
    num_fields = len(rows[0])
    counts = [len(row) for row in rows]
    same = counts.count(num_fields) / len(rows)
    more = sum(count > num_fields for count in counts) / len(rows)
    is_header = looks_like_names(rows[0])
    fit = same + (SURPLUS_FIT * more if is_header else 0.0)
    if more and not is_header and same < WANTED_FIT:
        fit = 0.0
    if more > 0.1 and is_header:
        # Surplus fields are text with separators; then all rows have at least the header's fields.
        fit = 0.95 if same + more > 0.98 else fit
    fields = [[row[index] for row in rows[1:] if len(row) == num_fields] for index in range(num_fields)]
    typed = sum(rate_column(field, len(field)).kind != "text" for field in fields) / num_fields
    inside = [field for row in rows for field in row[1:]]
    spaced = sum(field.startswith(" ") for field in inside) / max(1, len(inside))
    # Quotes are parsed where both readings fit: a field of quoted text then loses its quotes.
    penalty = {"doubled": 0.0, "backslash": 0.001, "none": 0.002}[form.quoting]
    return Trial(form, fit - penalty, same == 1.0, typed, spaced, num_fields)


def _are_enclosed(lines: Sequence[str], separator: str) -> bool:
    """Return whether quotes of lines enclose fields: most that open one close it before a separator or a line end."""
    mark = re.escape(separator)
    opened = re.compile(rf'(?:\A|{mark}) ?"')
    closed = re.compile(rf'(?:\A|{mark}) ?"[^"]*(?:""[^"]*)*"(?={mark}|\r?\n?\Z)')
    num_opened = sum(len(opened.findall(line)) for line in lines)
    if num_opened < FEW_QUOTES and separator in ",;":
        return num_opened > 0
    return sum(len(closed.findall(line)) for line in lines) >= 0.5 * num_opened > 0


def _find_plain_quoting(lines: Sequence[str], is_whole: bool, returns_end_rows: bool) -> str:
    """Return how quotes are meant in a file of one column.

    Raises:
        OpenQuote: they enclose fields, and one is not closed.
    """
    if not any(line.startswith('"') for line in lines):
        return "none"
    try:
        for _ in split_records(lines, CsvFormat("", "doubled", returns_end_rows), ""):
            pass
    except OpenQuote as error:
        is_torn = is_whole or not error.is_at_end
        if is_torn and _are_enclosed(lines, ONE_COLUMN):
            raise
        return "none" if is_torn else "doubled"
    return "doubled"


def _ask_sniffer(sample: str) -> str | None:
    try:
        return csv.Sniffer().sniff(sample[:20_000], "".join(SEPARATORS)).delimiter
    except csv.Error:
        return None


def looks_like_names(fields: Sequence[str]) -> bool:
    """Return whether a first row may be names of columns: short, different, and no numbers or sentences."""
    names = [field.strip() for field in fields]
    filled = [name for name in names if name]
    if not filled or len(set(filled)) < len(filled) - 1:
        return False
    return all(
        len(name) <= HEADER_CHARACTERS and len(name.split()) <= HEADER_WORDS and "\n" not in name for name in filled
    )


def has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the first of the rows names the columns, by what the rows below hold."""
    first, below = rows[0], rows[1:]
    names = [field.strip() for field in first]
    if not looks_like_names(first):
        return False
    if any(name.casefold() in COMMON_NAMES for name in names):
        return not any(_stands_below(name, index, below) for index, name in enumerate(names))
    for index, name in enumerate(names):
        values = [row[index] for row in below if len(row) > index]
        kind = rate_column(values, len(values)).kind if values else "empty"
        is_typed = kind in ("number", "date", "link")
        if is_typed and name:
            return rate_column([name], 1).kind != kind
        if kind == "label" and name in {value.strip() for value in values}:
            return False
    if not below:
        return all(name.isidentifier() for name in names)
    longest = max(range(len(names)), key=lambda index: sum(len(row[index]) for row in below if len(row) > index))
    lengths = sorted(len(row[longest]) for row in below if len(row) > longest)
    is_short = len(names[longest]) <= min(lengths[len(lengths) // 2] / 2, lengths[len(lengths) // 10] + 1)
    return is_short and all(re.fullmatch(r"[^\W\d][\w .:/()-]*", name) for name in names if name)


def _stands_below(name: str, index: int, below: Sequence[Sequence[str]]) -> bool:
    values = Counter(row[index].strip() for row in below if len(row) > index)
    return values[name] > 1


def name_columns(first: Sequence[str], is_header: bool) -> tuple[tuple[str, ...], str | None]:
    """Return the names of columns, all different, and a note where the header's had to be changed."""
    if not is_header:
        return tuple(str(index) for index in range(len(first))), None
    names: list[str] = []
    changed = []
    for index, field in enumerate(first):
        name = wanted = field.strip() or str(index)
        number = 2
        while name in names:
            name = f"{wanted}_{number}"
            number += 1
        if name != field.strip():
            changed.append(name)
        names.append(name)
    if not changed:
        return tuple(names), None
    return tuple(names), f"Header names that were empty or stood there twice are now: {', '.join(changed[:10])}."


def refuse_open_quote(name: str, line: int) -> DatasetError:
    """Return the error for a quote that is not closed."""
    return DatasetError(
        f'{name} line {line}: a quote (") opens there and is not closed, so the rows after it would become one; '
        f'close it, or write a quote that is text twice (""){show_line(name, line)}'
    )
