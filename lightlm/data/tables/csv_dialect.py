"""How a csv file is written, found by many of its rows: separator, quoting, line ends, and whether
it has a header.
"""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lightlm.data.tables.columns import OTHER_USUAL_COLUMNS, USUAL_COLUMNS, rate_column, show_line
from lightlm.data.tables.csv_rows import ONE_COLUMN, CsvFormat, OpenQuote, split_records, strip_end
from lightlm.errors import DatasetError

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
SUFFIX_SEPARATORS = {".tsv": "\t", ".tab": "\t", ".psv": "|"}

WANTED_FIT = 0.9
"""Fraction of rows that must have the fields of the first one for a separator to be believed."""

SURPLUS_FIT = 0.8
"""What a row with more fields counts: its text may hold the separator."""

RATED_FIELDS = 30
"""Fields that are looked at to judge a separator."""

TIGHT_SHARE = 0.9
"""Fraction of lines with a separator that no blank follows from which lines are no sentences."""

FEW_QUOTES = 3
"""Fields that begin with a quote and do not end with one, from which quotes in a file with commas
may be text.
"""

PROSE_SPACED = 0.9
"""Fraction of fields that begin with a blank from which the separators are the commas of
sentences.
"""

MOST_TITLE_LINES = 5
LEAST_TABLE_LINES = 4
SAMPLED_BELOW_TITLE = 100

HEADER_CHARACTERS = 64
HEADER_WORDS = 6
"""More than that in a first row's field is text, not a name."""

COMMON_NAMES = frozenset((
    *USUAL_COLUMNS, *OTHER_USUAL_COLUMNS, "id", "label", "labels", "title", "author", "name",
    "date", "url", "score",
    "rating", "stars", "class", "category", "sentiment", "target", "summary", "question",
    "answer", "instruction",
    "output", "input", "prompt", "response", "completion", "subject", "source", "lang",
    "language", "number", "index",
    "headline", "highlights", "word", "words", "line", "user", "item", "feedback", "quote",
    "notes", "note",
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
    is_named: bool
    is_prose: bool


def find_format(
    lines: Sequence[str], suffix: str, is_whole: bool, returns_end_rows: bool
) -> tuple[CsvFormat, int]:
    """Return how the fields of the sampled lines are written, and how many lines stand before the
    table.

    Raises:
        OpenQuote: a quote that encloses a field is not closed.
    """
    if (first := SEP_LINE.fullmatch(strip_end(lines[0]))) and first[1] in SEPARATORS:
        form = CsvFormat(first[1], "doubled", returns_end_rows)
        trials, _ = _try_all(lines[1:], first[1], is_whole, returns_end_rows)
        return max(trials, key=lambda trial: trial.fit).form if trials else form, 1

    trials, torn = _try_all(lines, "".join(SEPARATORS), is_whole, returns_end_rows)
    good = [trial for trial in trials if trial.fit >= WANTED_FIT and not trial.is_prose]
    skipped = 0

    while not good and not torn and skipped < min(MOST_TITLE_LINES, len(lines) - LEAST_TABLE_LINES):
        # A title, or comments, may stand above the header.
        skipped += 1
        if not lines[skipped].strip():
            continue
        trials, _ = _try_all(
            lines[skipped : skipped + SAMPLED_BELOW_TITLE],
            "".join(SEPARATORS),
            False,
            returns_end_rows,
        )
        good = [trial for trial in trials if trial.is_exact and trial.is_named]

    if not good:
        if torn is not None:
            raise torn
        if not _are_enclosed(lines, ONE_COLUMN):
            _refuse_fields(lines)
        return CsvFormat(
            "", _find_plain_quoting(lines, is_whole, returns_end_rows), returns_end_rows
        ), 0

    wanted = SUFFIX_SEPARATORS.get(suffix)
    voice = _ask_sniffer("".join(lines[skipped:]))
    best = max(
        good,
        key=lambda trial: (
            trial.form.separator == wanted,
            trial.is_exact,
            trial.typed - trial.spaced,
            trial.form.separator == voice,
            trial.fit,
        ),
    )

    return best.form, skipped


def _refuse_fields(lines: Sequence[str]) -> None:
    """Refuse to read lines whole where a separator in nearly all of them, with no blank behind it,
    shows fields.

    Raises:
        DatasetError: with what to do.
    """
    filled = [line for line in lines if line.strip()] or [""]
    for separator, word in SEPARATORS.items():
        tight = re.compile(rf"{re.escape(separator)}[^\s{re.escape(separator)}]")
        if tight.search(filled[0]) is None:
            continue
        if sum(tight.search(line) is not None for line in filled) < TIGHT_SHARE * len(filled):
            continue
        raise DatasetError(
            f"the lines seem to have fields (separator: {word}), but different numbers of them; "
            "write texts that hold "
            'the separator in quotes ("..."), or give a text file with one text per line as .txt'
        )


def _try_all(
    lines: Sequence[str], separators: str, is_whole: bool, returns_end_rows: bool
) -> tuple[list[Trial], OpenQuote | None]:
    """Return how well each way to write the lines fits, and the first quote that is open in one
    that may be meant.
    """
    sample = "".join(lines)
    trials = []
    torn = None

    for separator in separators:
        for form in (
            _list_formats(separator, sample, returns_end_rows) if separator in sample else ()
        ):
            try:
                trial = _try_format(lines, form, is_whole)
            except OpenQuote as error:
                torn = torn or error
            else:
                trials += [trial] if trial is not None else []

    return trials, torn


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
    except DatasetError:
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
    num_rated = min(num_fields, RATED_FIELDS)
    fields = [
        [row[index] for row in rows[1:] if len(row) == num_fields] for index in range(num_rated)
    ]

    typed = sum(rate_column(field, len(field)).kind != "text" for field in fields) / num_rated
    # Surplus fields are text with separators, where a header or typed columns show that there are
    # columns at all.
    is_table = is_header or (typed >= 0.5 and same >= 0.5)
    fit = same + (SURPLUS_FIT * more if is_table else 0.0)
    if is_table and more > 0.1 and same + more > 0.98:
        fit = max(fit, 0.95)

    inside = [field for row in rows for field in row[1:]]
    spaced = sum(field.startswith(" ") for field in inside) / max(1, len(inside))
    # Quotes are parsed where both readings fit: a field of quoted text then loses its quotes.
    penalty = {"doubled": 0.0, "backslash": 0.001, "none": 0.002}[form.quoting]
    is_named = is_header and any(name.strip().casefold() in COMMON_NAMES for name in rows[0])
    is_prose = not typed and spaced > PROSE_SPACED and not is_named

    return Trial(form, fit - penalty, same == 1.0, typed, spaced, is_named, is_prose)


def _are_enclosed(lines: Sequence[str], separator: str) -> bool:
    """Return whether quotes of lines enclose fields: most that open one close it before a separator
    or a line end.
    """
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
    """Return whether a first row may be names of columns: short, different, and no numbers or
    sentences.
    """
    names = [field.strip() for field in fields]
    filled = [name for name in names if name]
    if not filled or len(set(filled)) < len(filled) - 1:
        return False
    return all(
        len(name) <= HEADER_CHARACTERS and len(name.split()) <= HEADER_WORDS and "\n" not in name
        for name in filled
    )


def has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the first of the rows names the columns, by what the rows below hold."""
    first = rows[0]
    below = rows[1:]
    names = [field.strip() for field in first]
    if not looks_like_names(first):
        return False

    if any(name.casefold() in COMMON_NAMES for name in names):
        return not any(
            _stands_below(name, index, below) for index, name in enumerate(names) if name
        )

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

    longest = max(
        range(len(names)),
        key=lambda index: sum(len(row[index]) for row in below if len(row) > index),
    )
    lengths = sorted(len(row[longest]) for row in below if len(row) > longest)
    is_short = len(names[longest]) <= min(
        lengths[len(lengths) // 2] / 2, lengths[len(lengths) // 10] + 1
    )

    return is_short and all(
        re.fullmatch(r"[^\W\d]([\w .:/()-]*[\w)])?", name) for name in names if name
    )


def _stands_below(name: str, index: int, below: Sequence[Sequence[str]]) -> bool:
    values = Counter(row[index].strip() for row in below if len(row) > index)
    return values[name] > 1


def name_columns(first: Sequence[str], is_header: bool) -> tuple[tuple[str, ...], str | None]:
    """Return the names of columns, all different, and a note where the header's had to
    be changed.
    """
    if not is_header:
        return tuple(str(index) for index in range(len(first))), None

    names: dict[str, None] = {}
    taken: Counter[str] = Counter()
    changed = []

    for index, field in enumerate(first):
        name = wanted = field.strip() or str(index)
        while name in names:
            taken[wanted] += 1
            name = f"{wanted}_{taken[wanted] + 1}"
        if name != field.strip():
            changed.append(name)
        names[name] = None

    if not changed:
        return tuple(names), None

    return tuple(
        names
    ), f"Header names that were empty or stood there twice are now: {', '.join(changed[:10])}."


def refuse_open_quote(name: str, line: int) -> DatasetError:
    """Return the error for a quote that is not closed."""
    return DatasetError(
        f'{name} line {line}: a quote (") opens there and is not closed, so the rows after it '
        "would become one; "
        f'close it, or write a quote that is text twice (""){show_line(name, line)}'
    )
