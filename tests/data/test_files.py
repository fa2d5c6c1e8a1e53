"""Tests of reading rows from files: formats, columns, bytes that are no text."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightlm.data.files import FileSet, choose_column, find_files
from lightlm.errors import DatasetError


def rows(path: Path, column: str | None = None) -> list[str]:
    return list(FileSet((path,), column).rows())


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json", ".csv"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    texts = ["one", "two lines\nof text", "", 'quote " and , comma', "\u4e2d\u6587 \U0001f600"]
    path = tmp_path / f"data{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"id": range(5), "text": texts}), path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps({"id": 1, "text": t}) + "\n" for t in texts))
    elif suffix == ".json":
        path.write_text(json.dumps([{"id": 1, "text": t} for t in texts]))
    else:
        import csv

        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("id", "text"), *((1, t) for t in texts)])
    column = choose_column(path, None)
    assert column == "text"
    assert rows(path, column) == texts


def test_plain_text_is_read_line_by_line_and_joins_to_itself(tmp_path: Path) -> None:
    content = "first\r\nsecond \x00 with NUL\n\n  indented\ttab\nlast without end"
    path = tmp_path / "book.txt"
    path.write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert "".join(rows(path)) == content


def test_bytes_that_are_not_utf8_are_replaced_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"caf\xe9\nplain\n")
    found = FileSet((path,))
    assert list(found.rows()) == ["caf\ufffd\n", "plain\n"]
    assert found.counts.invalid == 1


def test_lone_surrogates_in_json_are_replaced_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_text('{"text": "a\\ud800b"}\n')
    found = FileSet((path,), "text")
    text = next(found.rows())
    assert text.encode("utf-8").startswith(b"a\xef\xbf\xbd")
    assert found.counts.invalid == 1


def test_null_and_empty_rows_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "holes.parquet"
    pq.write_table(pa.table({"text": ["a", None, "", "  ", "b"]}), path)
    found = FileSet((path,), "text")
    assert list(found.rows()) == ["a", "", "", "  ", "b"]
    assert found.counts.empty == 3
    assert found.count_rows() == 5


def test_the_column_is_the_one_named_the_usual_one_or_the_only_one(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"title": ["t"], "content": ["c"], "n": [1]}), path)
    assert choose_column(path, None) == "content"
    assert choose_column(path, "title") == "title"
    pq.write_table(pa.table({"story_en": ["t"], "n": [1]}), path)
    assert choose_column(path, None) == "story_en"


def test_a_missing_column_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"left": "a", "right": "b"}\n')
    with pytest.raises(DatasetError, match=r"no column .text.; its columns are left, right"):
        choose_column(path, "text")
    with pytest.raises(DatasetError, match=r"2 columns of text .*left, right.*--text-column"):
        choose_column(path, None)


def test_a_folder_keeps_its_splits(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001", "test-00000-of-00001"):
        pq.write_table(pa.table({"text": [name]}), tmp_path / f"{name}.parquet")
    (tmp_path / "README.md").write_text("about")
    found = find_files(tmp_path)
    assert {split: len(files) for split, files in found.items()} == {"train": 2, "validation": 1, "test": 1}


@pytest.mark.parametrize("make", ["empty", "mixed", "only_test", "other"])
def test_folders_and_files_that_cannot_be_used_are_refused(tmp_path: Path, make: str) -> None:
    path = tmp_path
    if make == "mixed":
        (tmp_path / "a.csv").write_text("text\nx\n")
        (tmp_path / "a.jsonl").write_text("{}")
    elif make == "only_test":
        (tmp_path / "test.csv").write_text("text\nx\n")
    elif make == "other":
        path = tmp_path / "a.docx"
        path.write_text("")
    with pytest.raises(DatasetError, match=r"give|name at least"):
        find_files(path)


@pytest.mark.parametrize("line", ["not json", "[1, 2]", '"text"', "{"])
def test_a_broken_json_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(f'{{"text": "fine"}}\n{line}\n')
    with pytest.raises(DatasetError, match="line 2"):
        rows(path, "text")


def test_a_file_that_only_looks_like_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DatasetError, match="not a readable parquet file"):
        choose_column(path, None)
