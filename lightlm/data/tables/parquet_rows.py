"""Rows of parquet files: texts, bytes, dictionaries, lists and structs of any column, in bounded
memory.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lightlm.data.characters.decoding import (
    Encoding,
    Opener,
    RowCounts,
    check_encoding_name,
    decode_text,
)
from lightlm.data.characters.file_checks import (
    EXPANDED_BYTES,
    HEAD_BYTES,
    LONGEST_ROW_BYTES,
    ROWS_PER_READ,
    TIGHT_RATIO,
    format_long,
)
from lightlm.data.tables.columns import (
    MOST_COLUMNS,
    BadRows,
    TableShape,
    list_names,
    no_rows,
    take_sample,
)
from lightlm.data.tables.records import choose_text, make_reader
from lightlm.errors import DatasetError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

PICTURE_SHARE = 0.1
"""Fraction of the first characters that are no text of the encoding from which a value is a picture
or the like.
"""

PICTURE_BYTES = 200_000
"""Mean length from which bytes are not even looked at."""

AHEAD_BYTES = 1 << 18
"""Bytes of a column that are read at once: its first rows cost no more than they need."""

READ_BYTES = 1 << 26
"""Mean length of what is read at once; Arrow holds it some times over."""


def inspect_parquet(
    open_input: Opener, name: str, encoding: str | None, column: str | None
) -> TableShape:
    """Return which column of a parquet file holds the text, by the types and by the first rows.

    Raises:
        DatasetError: not readable, no rows, no such column, or several that could be meant.
    """
    found = (
        Encoding("utf-8", "strict")
        if encoding is None
        else Encoding(check_encoding_name(encoding), "named")
    )

    with open_parquet(open_input, name) as file:
        schema = file.schema_arrow
        types = {field.name: field.type for field in schema if _may_hold_text(field.type)}
        if not file.metadata.num_rows:
            raise no_rows(name)
        large = _find_large(file)
        names = [field for field in schema.names if field in types and field not in large][
            :MOST_COLUMNS
        ]
        if column is not None and column in schema.names and column not in names:
            names = [column]
        if not names:
            raise DatasetError(
                f"{name} has no column of text (columns: {list_names(schema.names)}); give another"
            )
        sample = take_sample(_read_objects(file, names, name, found, RowCounts(), keep_bytes=True))

    shape = choose_text(sample, "parquet", name, found, column, {})
    top = _find_top(shape.column, schema.names)
    notes = list(shape.notes)
    if top in types and _is_binary(types[top]):
        notes.append(f"The column {top} holds bytes: they are read as {found.name.upper()}.")
    if shape.column not in schema.names and shape.template is None and top is not None:
        notes.append(f"The text is {shape.column}, inside of the objects of {top}.")

    details = {
        **shape.details,
        "read": [top] if top is not None and shape.template != "pair" else names,
    }

    return TableShape(
        "parquet",
        tuple(schema.names),
        shape.column,
        shape.template,
        found,
        details,
        tuple(notes),
        name,
    )


def read_parquet(
    open_input: Opener, shape: TableShape, counts: RowCounts, bad: BadRows
) -> Iterator[str]:
    """Yield the text of each row.

    Raises:
        DatasetError: not readable, another schema than the one inspected, or rows that memory may
            not hold.
    """
    details = shape.details
    read = make_reader(shape, counts, bad)

    columns = list(dict.fromkeys((*details["read"], *details["also"])))
    with open_parquet(open_input, shape.name) as file:
        for number, row in enumerate(
            _read_objects(file, columns, shape.name, shape.encoding, counts), 1
        ):
            bad.num_rows += 1
            yield read(row, f"row {number}")


def count_parquet(open_input: Opener, name: str) -> int:
    """Return how many rows a parquet file says that it has."""
    with open_parquet(open_input, name) as file:
        return file.metadata.num_rows


@contextmanager
def open_parquet(
    open_input: Opener, name: str, ahead_bytes: int = AHEAD_BYTES
) -> Iterator["pq.ParquetFile"]:
    """Give a parquet file whose columns are read `ahead_bytes` at a time.

    Raises:
        DatasetError: not readable, when it is opened or later.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_input() as stream:
        try:
            file = pq.ParquetFile(stream, buffer_size=ahead_bytes, pre_buffer=False)
        except (pa.ArrowException, OSError, ValueError) as error:
            why = str(error).partition("\n")[0]
            raise DatasetError(
                f"{name} is not a readable parquet file ({why}); download or write it again"
            ) from None
        try:
            yield file
        except (pa.ArrowException, OSError, ValueError, NotImplementedError) as error:
            why = str(error).partition("\n")[0]
            raise DatasetError(
                f"{name} cannot be read ({why}); download or write it again"
            ) from None


def _read_objects(
    file: Any,
    columns: list[str],
    name: str,
    encoding: Encoding,
    counts: RowCounts,
    *,
    keep_bytes: bool = False,
) -> Iterator[Mapping[str, Any]]:
    rows = choose_rows(file, columns, name)
    for batch in file.iter_batches(rows, columns=columns):
        found = {
            field: _to_values(batch.column(index), encoding, counts, keep_bytes)
            for index, field in enumerate(batch.schema.names)
            if field in columns
        }
        if len(found) == 1:
            field, values = next(iter(found.items()))
            yield from ({field: value} for value in values)
            continue
        for row in zip(*found.values(), strict=True):
            yield dict(zip(found, row, strict=True))


def choose_rows(file: Any, columns: list[str], name: str) -> int:
    """Return how many rows of a parquet file to read at once, so that memory holds what they expand
    to.

    Raises:
        DatasetError: it has no such column, or rows that memory may not hold.
    """
    missing = [column for column in columns if column not in file.schema_arrow.names]
    if missing:
        raise DatasetError(
            f"{name} has no column {missing[0]!r}, as it had before; it was changed: start again"
        )

    rows = ROWS_PER_READ
    for group in map(file.metadata.row_group, range(file.metadata.num_row_groups)):
        expanded = 0
        for chunk in map(group.column, range(group.num_columns)):
            path = chunk.path_in_schema
            if not any(path == column or path.startswith(f"{column}.") for column in columns):
                continue
            if chunk.total_uncompressed_size > LONGEST_ROW_BYTES * max(1, chunk.num_values):
                raise DatasetError(
                    f"{name} has rows of "
                    f"{format_long(chunk.total_uncompressed_size // chunk.num_values)}"
                )
            mean = chunk.total_uncompressed_size // max(1, chunk.num_values)
            rows = min(rows, max(1, READ_BYTES // max(1, mean)))
            if chunk.total_uncompressed_size > TIGHT_RATIO * chunk.total_compressed_size:
                expanded += chunk.total_uncompressed_size
        if expanded:
            rows = min(rows, max(1, EXPANDED_BYTES // expanded))

    return rows


def _find_large(file: Any) -> set[str]:
    """Return the columns that hold bytes of pictures, sounds or the like, by the lengths that the
    file states.
    """
    found = set()
    for group in map(file.metadata.row_group, range(min(1, file.metadata.num_row_groups))):
        for index in range(group.num_columns):
            chunk = group.column(index)
            is_text = file.schema.column(index).logical_type.type == "STRING"
            if not is_text and chunk.total_uncompressed_size > PICTURE_BYTES * max(
                1, chunk.num_values
            ):
                found.add(
                    _find_top(chunk.path_in_schema, file.schema_arrow.names) or chunk.path_in_schema
                )

    return found


def _to_values(array: Any, encoding: Encoding, counts: RowCounts, keep_bytes: bool) -> list[Any]:
    """Return the values of a column; texts and bytes decoded, those that are not as the encoding
    says counted.

    With `keep_bytes` pictures and the like stay bytes.
    """
    import pyarrow as pa

    kind = array.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        array = array.dictionary_decode()

    if _is_binary(kind):
        values = array.to_pylist()
        if keep_bytes:
            return [
                value if value is None else _decode_or_keep(value, encoding) for value in values
            ]
        return [None if value is None else decode_text(value, encoding, counts) for value in values]

    try:
        return array.to_pylist()
    except UnicodeDecodeError:
        if not _is_string(kind):
            return [_to_value(value) for value in array]

    # Arrow does not check that the texts of a file are UTF-8, and its own conversion raises.
    values = array.cast(
        pa.binary_view() if pa.types.is_string_view(kind) else pa.large_binary()
    ).to_pylist()
    utf_8 = Encoding("utf-8", "strict")

    return [None if value is None else decode_text(value, utf_8, counts) for value in values]


def _decode_or_keep(value: bytes, encoding: Encoding) -> str | bytes:
    head = value[:HEAD_BYTES].decode(encoding.name, "replace")
    is_picture = "\0" in head or head.count("\ufffd") > PICTURE_SHARE * len(head)
    return value if is_picture else decode_text(value, encoding, RowCounts())


def _to_value(value: Any) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return {}


def _is_string(kind: Any) -> bool:
    import pyarrow as pa

    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def _may_hold_text(kind: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        return _may_hold_text(kind.value_type)
    if types.is_struct(kind):
        return any(_may_hold_text(kind.field(index).type) for index in range(kind.num_fields))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _may_hold_text(kind.value_type)
    return _is_string(kind) or _is_binary(kind)


def _find_top(column: str, names: list[str]) -> str | None:
    """Return the column of the file in which a dotted name lies."""
    fits = [name for name in names if column == name or column.startswith(f"{name}.")]
    return max(fits, key=len, default=None)
