"""Rows from files: each by its own format, encoding and column, documents ended where they end, all
of it recorded.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightlm.data.files import rows
from lightlm.data.files.inputs import find_inputs
from lightlm.data.files.rows import SourceFile, Tally, hash_files, open_source_file
from lightlm.errors import DatasetError


def open_file(path: Path, column: str | None = None, encoding: str | None = None) -> SourceFile:
    return SourceFile(find_inputs(path).files[0], column, encoding)


def documents(file: SourceFile, tally: Tally | None = None) -> list[str]:
    found = []
    lines = []
    for row in file.rows(tally or Tally()):
        if row is None:
            found.append("".join(lines))
            lines = []
        else:
            lines.append(row)
    assert not lines, "every document is ended"
    return found


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json", ".csv", ".tsv", ".jsonl.gz"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    import csv
    import gzip

    texts = [
        "one row of text",
        "two lines\nof text",
        'quote " and , comma and \t tab',
        "\u4e2d\u6587 \U0001f600 \u00e9",
    ] * 5

    path = tmp_path / f"data{suffix}"
    lines = "".join(json.dumps({"id": 1, "text": text}) + "\n" for text in texts)
    if suffix == ".parquet":
        pq.write_table(pa.table({"id": range(20), "text": texts}), path)
    elif suffix == ".jsonl":
        path.write_text(lines)
    elif suffix == ".jsonl.gz":
        path.write_bytes(gzip.compress(lines.encode()))
    elif suffix == ".json":
        path.write_text(json.dumps([{"id": 1, "text": text} for text in texts]))
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="\t" if suffix == ".tsv" else ",")
            writer.writerows([("id", "text"), *((1, text) for text in texts)])

    file = open_file(path)
    assert file.shape is not None and file.shape.column == "text"
    assert [text for text in documents(file) if text] == texts


def test_a_plain_text_is_one_document_that_joins_to_itself(tmp_path: Path) -> None:
    content = "first\r\nsecond\n\n  indented\ttab\nlast without end"
    path = tmp_path / "book.txt"
    path.write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert documents(open_file(path)) == [content]


def test_lines_that_are_exactly_the_border_end_documents_and_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "stories.txt"
    path.write_text("one\n<|endoftext|>\ntwo has <|endoftext|> inside\n<|endoftext|> \nthree")
    tally = Tally()
    file = open_file(path)
    assert documents(file, tally) == ["one\n", "two has <|endoftext|> inside\n", "three"]
    assert "2 lines that are exactly <|endoftext|> end documents" in file.describe(tally).notes


def test_a_text_in_another_encoding_is_read_in_it_and_said(tmp_path: Path) -> None:
    content = "Die schönen Mädchen hörten süße Vögel über der Brücke.\n" * 20
    path = tmp_path / "roman.txt"
    path.write_bytes(content.encode("latin-1"))
    tally = Tally()
    file = open_file(path)
    assert documents(file, tally) == [content]
    record = file.describe(tally)
    assert (record.encoding, record.replaced_bytes) == ("cp1252", 0)
    assert record.notes == ["roman.txt is read as cp1252"]
    assert documents(open_file(path, encoding="cp1250")) == [
        content.encode("latin-1").decode("cp1250")
    ]


def test_a_stray_byte_is_replaced_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "nearly.txt"
    path.write_bytes(b"caf\xe9\nplain\n")
    tally = Tally()
    file = open_file(path)
    assert documents(file, tally) == ["caf\ufffd\nplain\n"]
    record = file.describe(tally)
    assert (record.rows, record.bad_rows, record.replaced_bytes) == (2, 1, 1)


def test_rows_of_a_table_that_are_lines_are_one_running_text(tmp_path: Path) -> None:
    rows = [
        "",
        " = Title = \n",
        "",
        *(f" paragraph {index} of the text . \n" for index in range(20)),
    ]

    pq.write_table(pa.table({"text": rows}), tmp_path / "wiki.parquet")
    file = open_file(tmp_path / "wiki.parquet")
    tally = Tally()
    assert file.is_running_text
    assert documents(file, tally) == ["".join(rows)]
    assert file.describe(tally).empty_rows == 0, "an empty line is part of the text"


def test_a_file_that_only_looks_like_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DatasetError, match=r"data\.parquet"):
        documents(open_file(path))


def test_what_was_found_out_about_a_file_is_kept_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,story\n" + "".join(f"{n},row {n} tells of a river\n" for n in range(30)))
    (file,) = find_inputs(path).files
    assert open_source_file(file, None, None) is not open_source_file(file, None, None), "just made"

    monkeypatch.setattr("lightlm.data.files.rows.SETTLED_NANOSECONDS", 0)
    before = open_source_file(file, None, None)
    digest = hash_files([file])
    assert open_source_file(file, None, None) is before
    assert open_source_file(file, "story", None) is not before
    assert hash_files([file]) == digest

    path.write_text(path.read_text().replace("story", "novel"))
    assert open_source_file(file, None, None) is not before
    assert hash_files([file]) != digest


def test_a_large_file_is_hashed_by_pieces_and_any_change_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "HASHED_BYTES", 1_000)
    digests = set()
    for place in (0, 999, 1_000, 2_499):
        path = tmp_path / f"{place}.txt"
        content = bytearray(b"a" * 2_500)
        content[place] = ord("b")
        path.write_bytes(content)
        digests.add(hash_files(find_inputs(path).files))
        path.rename(same := tmp_path / f"{place}-same.txt")
        digests.add(hash_files(find_inputs(same).files))
    assert len(digests) == 4
