"""Texts of csv and tsv files: their format, columns and header found, rows with too many or too few
fields judged.
"""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from lightlm.data.characters.decoding import Encoding, Opener, RowCounts
from lightlm.data.tables.columns import (
    DATE,
    LINK,
    MOST_COLUMNS,
    NUMBER,
    BadRows,
    Rating,
    TableShape,
    choose_column,
    list_examples,
    no_rows,
    rate_column,
    shorten,
    show_line,
)
from lightlm.data.tables.csv_dialect import (
    SEP_LINE,
    SEPARATORS,
    find_format,
    has_header,
    name_columns,
    refuse_open_quote,
)
from lightlm.data.tables.csv_rows import (
    CsvFormat,
    OpenQuote,
    iterate_parts,
    join_lines,
    split_records,
    strip_end,
)
from lightlm.errors import DatasetError

SAMPLE_LINES = 1000
SAMPLE_CHARACTERS = 1 << 20
LEAST_LINES = 200
MOST_CHARACTERS = 1 << 25
LEAST_ROWS = 20
"""A sample ends after SAMPLE_LINES, or after SAMPLE_CHARACTERS and LEAST_LINES, or after
MOST_CHARACTERS; where it holds fewer than LEAST_ROWS rows, a larger one is taken.
"""

WHOLE_ROWS = 5
WHOLE_SHARE = 0.05
"""Rows with as many fields as the header that are enough to rate columns by."""

BLANK_SHARE = 0.5
"""Fraction of surplus fields that begin with a blank, as behind the commas of sentences."""

MOST_ALIGNED = 50
"""Columns up to which the one with unquoted separators is looked for."""

KIND_PATTERNS = {"number": NUMBER, "date": DATE, "link": LINK}
LABEL_WORDS = 4


def inspect_csv(
    open_input: Opener, suffix: str, name: str, encoding: Encoding, column: str | None
) -> TableShape:
    """Return how a csv file is written and which of its columns holds the text.

    Raises:
        DatasetError: no rows, an open quote, no such column, or several that could be meant.
    """
    form, skipped, lines, rows = _read_sample(open_input, suffix, name, encoding)
    is_header = has_header(rows)
    names, renamed = name_columns(rows[0], is_header)
    below = rows[1:] if is_header else rows

    if not below:
        raise no_rows(name, " below its header")

    named = _resolve(column, names)
    ratings = _rate(names, _align(below, len(names), form.separator), named)
    chosen = choose_column(ratings, name, named)
    notes = _describe(form, lines, skipped)

    if not is_header:
        notes.append(
            "No header: the first row is data, the columns are numbered "
            f"({list_examples(ratings)})."
        )

    notes += [renamed] if renamed else []
    surplus = [
        row
        for row in below
        if len(row) > len(names) and any(field.strip() for field in row[len(names) :])
    ]

    details = {
        "separator": form.separator, "quoting": form.quoting,
        "returns_end_rows": form.returns_end_rows,
        "skips_spaces": form.skips_spaces, "has_header": is_header, "skipped_lines": skipped,
        "kinds": [ratings[name].kind if name in ratings else "number" for name in names],
        "is_named": column is not None,
    }  # fmt: skip

    shape = TableShape("csv", names, chosen, None, encoding, details, tuple(notes), name)
    if surplus:
        text_column = _find_text_column(shape)
        if text_column is not None:
            _refuse_shifted(surplus, shape, text_column)
            note = (
                "Rows with more fields than the header: the rest belongs to the text "
                f"({names[text_column]})."
            )
            shape = TableShape("csv", names, chosen, None, encoding, details, (*notes, note), name)

    return shape


def _read_sample(
    open_input: Opener, suffix: str, name: str, encoding: Encoding
) -> tuple[CsvFormat, int, list[str], list[list[str]]]:
    """Return the format of a file, how many lines stand above the table, and lines and records from
    its start.

    Raises:
        DatasetError: no rows, or an open quote.
    """
    for most in (SAMPLE_LINES, 100 * SAMPLE_LINES):
        lines, is_whole, returns_end_rows = _sample_lines(open_input, name, encoding, most)
        if not lines:
            raise no_rows(name)
        try:
            form, skipped = find_format(lines, suffix, is_whole, returns_end_rows)
        except OpenQuote as error:
            raise refuse_open_quote(name, error.line) from None
        except DatasetError as error:
            raise DatasetError(f"{name}: {error}") from None
        rows: list[list[str]] = []
        torn: OpenQuote | None = None
        try:
            rows.extend(fields for _, fields in split_records(lines[skipped:], form, name))
        except OpenQuote as error:
            torn = error
        # Texts may go over very many lines.
        if is_whole or len(rows) >= LEAST_ROWS:
            break

    if torn is not None and (is_whole or not torn.is_at_end or len(rows) < 2):
        raise refuse_open_quote(name, torn.line + skipped)
    if not rows:
        raise no_rows(name)

    return form, skipped, lines, rows


def _describe(form: CsvFormat, lines: Sequence[str], skipped: int) -> list[str]:
    """Return what a person should know of the way a file is written."""
    notes = []
    if not form.separator:
        notes.append("One column: the lines hold no separator that all of them share.")
    elif form.separator != ",":
        notes.append(f"The separator is the {SEPARATORS[form.separator]}.")

    if form.quoting == "none" and any('"' in line for line in lines):
        notes.append("Quotes are text, they enclose no fields.")
    if form.quoting == "backslash":
        notes.append(r"Quotes inside of fields are written \".")
    if skipped and not SEP_LINE.fullmatch(strip_end(lines[0])):
        notes.append(f'The table begins at line {skipped + 1}, below "{shorten(lines[0])}".')

    return notes


def read_csv(
    open_input: Opener, shape: TableShape, counts: RowCounts, bad: BadRows
) -> Iterator[str]:
    """Yield the text of each row.

    Raises:
        DatasetError: a quote that is not closed, fields that belong to no column, or too many rows
            without the column.
    """
    details = shape.details
    form = CsvFormat(
        details["separator"],
        details["quoting"],
        details["returns_end_rows"],
        details.get("skips_spaces", False),
    )

    num_columns = len(shape.columns)
    index = shape.columns.index(shape.column)
    left_out = int(details["has_header"])
    skipped = details["skipped_lines"]

    with open_input() as stream:
        lines = _iterate(stream, shape.encoding, counts, shape.name, form.returns_end_rows)
        for _ in range(skipped):
            next(lines, None)
        try:
            for number, fields in split_records(lines, form, shape.name):
                if left_out:
                    left_out = 0
                    continue
                counts.rows += 1
                bad.num_rows += 1
                if len(fields) > num_columns:
                    fields = join_surplus(fields, shape, number + skipped)
                if index < len(fields):
                    text = fields[index]
                else:
                    text = ""
                    counts.bad_rows += 1
                    bad.add(
                        f"line {number + skipped} has {len(fields)} of {num_columns} fields, so "
                        "its text is missing (a line break inside of a text must stand in quotes)"
                    )
                if counts.replaced_bytes and "\ufffd" in text:
                    counts.bad_rows += 1
                counts.empty += not text.strip()
                yield text
        except OpenQuote as error:
            raise refuse_open_quote(shape.name, error.line + skipped) from None


def join_surplus(fields: list[str], shape: TableShape, number: int) -> list[str]:
    """Return the fields of a row that has too many, the surplus joined to the text that holds the
    separator.

    Raises:
        DatasetError: it may belong to another column.
    """
    num_columns = len(shape.columns)
    if not any(field.strip() for field in fields[num_columns:]):
        return fields[:num_columns]

    kinds = shape.details["kinds"]
    index = _find_text_column(shape)
    if index is not None:
        joined = join_fields(fields, index, num_columns, shape.details["separator"])
        others = [position for position in range(num_columns) if position != index]
        if all(_fits(joined[position], kinds[position]) for position in others):
            return joined

    raise DatasetError(
        f"{shape.name} line {number} has {len(fields)} fields, wanted {num_columns}: a text that "
        "holds the separator "
        f'must stand in quotes ("..."); mend the line{show_line(shape.name, number)}'
    )


def _refuse_shifted(rows: Sequence[Sequence[str]], shape: TableShape, index: int) -> None:
    """Refuse rows whose surplus does not look like the commas of sentences: another column may hold
    the separator.

    Raises:
        DatasetError: with an example.
    """
    num_columns = len(shape.columns)
    parts = [part for row in rows for part in row[index + 1 : len(row) - (num_columns - 1 - index)]]
    blank = sum(not part.strip() or part[0].isspace() or not part[0].isascii() for part in parts)
    if blank < BLANK_SHARE * len(parts):
        example = shorten(" ".join(rows[0]))
        raise DatasetError(
            f"{shape.name} has {len(rows):,} rows with more fields than its first row, such as "
            f'"{example}"; a field '
            'that holds the separator must stand in quotes ("..."): write the file again with '
            "quotes"
        )


def _find_text_column(shape: TableShape) -> int | None:
    """Return the only column that may hold unquoted separators."""
    texts = [index for index, kind in enumerate(shape.details["kinds"]) if kind == "text"]
    return texts[0] if len(texts) == 1 else None


def _fits(field: str, kind: str) -> bool:
    field = field.strip()
    if kind in KIND_PATTERNS:
        return not field or KIND_PATTERNS[kind].fullmatch(field) is not None
    return len(field.split()) < LABEL_WORDS and not field.endswith(".")


def _align(rows: Sequence[list[str]], num_columns: int, separator: str) -> Sequence[list[str]]:
    """Return rows to rate columns by: whole ones, or with surplus fields joined where the others
    are no text then.
    """
    whole = [row for row in rows if len(row) <= num_columns]
    if len(whole) >= max(WHOLE_ROWS, WHOLE_SHARE * len(rows)) or len(whole) == len(rows):
        return whole

    fits = []
    for index in range(num_columns if num_columns <= MOST_ALIGNED else 0):
        joined = [
            join_fields(row, index, num_columns, separator) if len(row) > num_columns else row
            for row in rows
        ]
        others = [position for position in range(num_columns) if position != index]
        values = [[row[position] for row in joined if len(row) > position] for position in others]
        if all(rate_column(column, len(column)).kind != "text" for column in values):
            fits.append(joined)

    return fits[0] if len(fits) == 1 else whole or rows


def join_fields(fields: list[str], index: int, num_columns: int, separator: str) -> list[str]:
    """Return fields with the surplus ones joined to the one at `index`."""
    end = len(fields) - (num_columns - 1 - index)
    return [*fields[:index], separator.join(fields[index:end]), *fields[end:]]


def _rate(
    names: Sequence[str], rows: Sequence[Sequence[str]], named: str | None
) -> dict[str, Rating]:
    return {
        name: rate_column([row[index] for row in rows if len(row) > index], len(rows))
        for index, name in enumerate(names)
        if index < MOST_COLUMNS or name == named
    }


def _resolve(column: str | None, names: Sequence[str]) -> str | None:
    """Return a named column; a header's names may be given with other blanks around them."""
    if column is None or column in names:
        return column
    return column.strip() if column.strip() in names else column


def _sample_lines(
    open_input: Opener, name: str, encoding: Encoding, most: int
) -> tuple[list[str], bool, bool]:
    """Return lines from the start, whether they are all, and whether carriage returns end them."""
    with open_input() as stream:
        first = next(iterate_parts(stream, encoding, RowCounts()), "")

    returns_end_rows = not first.endswith("\n") and "\r" in first
    lines: list[str] = []
    length = 0

    with open_input() as stream:
        for line in _iterate(stream, encoding, RowCounts(), name, returns_end_rows):
            lines.append(line)
            length += len(line)
            is_enough = (
                most == SAMPLE_LINES and len(lines) >= LEAST_LINES and length >= SAMPLE_CHARACTERS
            )
            if len(lines) >= most or is_enough or length >= MOST_CHARACTERS:
                return lines, False, returns_end_rows

    return lines, True, returns_end_rows


def _iterate(
    stream: BinaryIO, encoding: Encoding, counts: RowCounts, name: str, returns_end_rows: bool
) -> Iterator[str]:
    lines = iterate_parts(stream, encoding, counts, returns_end_rows=returns_end_rows)
    for index, line in enumerate(join_lines(lines, name, returns_end_rows)):
        yield line.removeprefix("\ufeff") if index == 0 else line
