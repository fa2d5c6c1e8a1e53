"""Tables: csv, JSON and parquet files as rows of text; what a file's shape is, and its rows by that
shape.
"""

from collections.abc import Iterator

from lightlm.data.characters.decoding import Opener, RowCounts, find_encoding
from lightlm.data.characters.file_checks import explain_unreadable
from lightlm.data.tables.columns import BadRows, TableShape
from lightlm.data.tables.csv_table import inspect_csv, read_csv
from lightlm.data.tables.json_rows import count_json, inspect_json, read_json
from lightlm.data.tables.parquet_rows import count_parquet, inspect_parquet, read_parquet

CSV_SUFFIXES = (".csv", ".tsv", ".tab", ".psv")
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json", ".jsonlines")
PARQUET_SUFFIXES = (".parquet",)
TABLE_SUFFIXES = (*PARQUET_SUFFIXES, *JSON_SUFFIXES, *CSV_SUFFIXES)

__all__ = ["TABLE_SUFFIXES", "TableShape", "count_rows", "inspect_table", "read_rows"]


def inspect_table(
    open_input: Opener,
    suffix: str,
    name: str,
    *,
    column: str | None = None,
    encoding: str | None = None,
) -> TableShape:
    """Return how a table is read and which of its columns holds the text, by the first rows.

    Raises:
        DatasetError: not readable, no text, or no column that is sure; with the command that
            settles it.
    """
    suffix = suffix.lower()
    with explain_unreadable(name):
        if suffix in PARQUET_SUFFIXES:
            return inspect_parquet(open_input, name, encoding, column)
        found = find_encoding(open_input, name, encoding)
        if suffix in JSON_SUFFIXES:
            return inspect_json(open_input, suffix, name, found, column)
        return inspect_csv(open_input, suffix, name, found, column)


def read_rows(open_input: Opener, shape: TableShape, counts: RowCounts) -> Iterator[str]:
    """Yield the text of each row, "" for one without; `counts` are filled on the way.

    Raises:
        DatasetError: a row that cannot be read, or too many broken ones.
    """
    bad = BadRows(shape.name)
    reader = {"csv": read_csv, "parquet": read_parquet}.get(shape.kind, read_json)
    with explain_unreadable(shape.name):
        yield from reader(open_input, shape, counts, bad)


def count_rows(open_input: Opener, shape: TableShape) -> int | None:
    """Return how many rows a table has, None where only reading it tells.

    Raises:
        DatasetError: not readable.
    """
    with explain_unreadable(shape.name):
        if shape.kind == "parquet":
            return count_parquet(open_input, shape.name)
        return count_json(open_input, shape) if shape.kind == "jsonl" else None
