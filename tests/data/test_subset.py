"""Tests of the subset: which documents, on which side of the split, counted, and byte-exact."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightlm.data.subset import TextSubset, check_dataset, materialize_subset, open_subset
from lightlm.errors import DatasetError
from lightlm.params import DatasetParams

from .conftest import make_document

Choose = Callable[..., DatasetParams]


def write_rows(path: Path, texts: list[str | None]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def documents(subset: TextSubset, split: str) -> list[str]:
    return [one.decode() for one in subset.read_documents(split)]


def test_every_document_is_on_exactly_one_side(tmp_path: Path, dataset: Choose) -> None:
    texts = [make_document(i) for i in range(200)]
    subset = materialize_subset(dataset(write_rows(tmp_path / "d.jsonl", list(texts))))
    train, held_out = documents(subset, "train"), documents(subset, "validation")
    assert sorted(train + held_out) == sorted(texts)
    assert 1 <= len(held_out) <= 30
    assert subset.validation_sha256 == hashlib.sha256("".join(held_out).encode()).hexdigest()
    assert subset.num_bytes == sum(len(text.encode()) for text in train)


def test_the_split_of_a_document_does_not_change_when_others_come(tmp_path: Path, dataset: Choose) -> None:
    texts = [make_document(i) for i in range(300)]
    small = materialize_subset(dataset(write_rows(tmp_path / "a.jsonl", list(texts[:200]))))
    large = materialize_subset(dataset(write_rows(tmp_path / "b.jsonl", list(reversed(texts)))))
    assert set(documents(small, "validation")) <= set(documents(large, "validation"))
    assert not set(documents(small, "train")) & set(documents(large, "validation"))


def test_copies_never_stand_on_both_sides(tmp_path: Path, dataset: Choose) -> None:
    texts = [make_document(i % 40) for i in range(200)]
    subset = materialize_subset(dataset(write_rows(tmp_path / "d.jsonl", list(texts))))
    assert not set(documents(subset, "train")) & set(documents(subset, "validation"))


def test_training_copies_of_a_given_validation_split_are_removed_and_counted(tmp_path: Path, dataset: Choose) -> None:
    held_out = [make_document(i) for i in range(5)]
    train = [make_document(i) for i in range(3, 50)]
    pq.write_table(pa.table({"text": train}), tmp_path / "train-0.parquet")
    pq.write_table(pa.table({"text": held_out}), tmp_path / "validation-0.parquet")
    subset = materialize_subset(dataset(tmp_path))
    assert documents(subset, "validation") == held_out
    assert documents(subset, "train") == train[2:]
    assert subset.num_duplicates_removed == 2


def test_rows_that_are_lines_are_joined_as_they_stand(tmp_path: Path, dataset: Choose) -> None:
    train = ["", " = Title = \n", "", *(f" {make_document(i)} \n" for i in range(100)), "", " = = Part = = \n"]
    held_out = ["", *(f" {make_document(1000 + i)} \n" for i in range(30))]
    pq.write_table(pa.table({"text": train}), tmp_path / "train-0.parquet")
    pq.write_table(pa.table({"text": held_out}), tmp_path / "validation-0.parquet")
    subset = materialize_subset(dataset(tmp_path))
    assert subset.is_running_text
    assert "".join(documents(subset, "train")) == "".join(train)
    assert "".join(documents(subset, "validation")) == "".join(held_out)
    assert subset.num_validation_bytes == sum(len(row.encode()) for row in held_out)


def test_a_plain_text_loses_nothing_but_what_is_held_out(tmp_path: Path, dataset: Choose) -> None:
    content = "\n\n".join(f"{make_document(i)}\n{make_document(i + 500)}" for i in range(100)) + "\n"
    path = tmp_path / "book.txt"
    path.write_text(content)
    subset = materialize_subset(dataset(path))
    pieces = documents(subset, "train") + documents(subset, "validation")
    assert sum(map(len, pieces)) == len(content)
    assert all(piece in content for piece in pieces)
    assert len(documents(subset, "validation")) >= 1


def test_a_subset_says_how_much_it_is_of_the_whole(tmp_path: Path, dataset: Choose) -> None:
    path = write_rows(tmp_path / "d.jsonl", [make_document(i) for i in range(1500)])
    part = materialize_subset(dataset(path, max_documents=20))
    assert part.summary().startswith("Using subset: 20 of 1,500 documents")
    assert part.num_documents == 20
    assert materialize_subset(dataset(path)).summary().startswith("Using all 1,500 documents")


def test_max_bytes_ends_the_reading_early(tmp_path: Path, dataset: Choose) -> None:
    path = write_rows(tmp_path / "d.jsonl", [make_document(i) for i in range(500)])
    limited = materialize_subset(dataset(path, max_bytes=10_000))
    assert 10_000 <= limited.num_bytes < 11_000
    assert materialize_subset(dataset(path), needed_bytes=[20_000]).num_bytes < 21_000


def test_validation_is_capped_at_a_documents_end(tmp_path: Path, dataset: Choose) -> None:
    pq.write_table(pa.table({"text": [make_document(i) for i in range(50)]}), tmp_path / "train-0.parquet")
    held_out = [make_document(1000 + i) for i in range(50)]
    pq.write_table(pa.table({"text": held_out}), tmp_path / "validation-0.parquet")
    subset = materialize_subset(dataset(tmp_path, max_validation_bytes=2000))
    taken = documents(subset, "validation")
    assert taken == held_out[: len(taken)]
    assert 1500 < sum(map(len, taken)) <= 2000


def test_the_second_materialization_is_from_the_store(tmp_path: Path, dataset: Choose) -> None:
    path = write_rows(tmp_path / "d.jsonl", [make_document(i) for i in range(50)])
    first, second = materialize_subset(dataset(path)), materialize_subset(dataset(path))
    assert (first.reused, second.reused) == (False, True)
    assert first.fingerprint == second.fingerprint
    assert documents(open_subset(first.folder), "train") == documents(second, "train")
    write_rows(path, [make_document(i) for i in range(51)])
    assert materialize_subset(dataset(path)).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no text"),
        (["", None, "  "], "no text"),
        (["only one document, and no other"], "too small"),
        (["the same twice"] * 7, "too small"),
    ],
)
def test_too_little_text_is_refused_at_a_glance_and_when_made(
    tmp_path: Path, dataset: Choose, texts: list[str | None], message: str
) -> None:
    params = dataset(write_rows(tmp_path / "d.jsonl", texts))
    with pytest.raises(DatasetError, match=message):
        check_dataset(params)
    with pytest.raises(DatasetError, match=message):
        materialize_subset(params)


def test_a_text_smaller_than_the_context_is_refused_at_a_glance(tmp_path: Path, dataset: Choose) -> None:
    params = dataset(write_rows(tmp_path / "d.jsonl", ["a few", "words"]))
    with pytest.raises(DatasetError, match="context_length 512"):
        check_dataset(params, context_length=512)


def test_odd_corpora_train_and_are_counted(tmp_path: Path, dataset: Choose) -> None:
    texts = [make_document(i) for i in range(30)]
    odd = [*texts, "a\x00b" * 200, "line\r\nline\r\n" * 50, "\ufeffbom " * 50, "x" * 3_000_000, None, "", " \n "]
    subset = materialize_subset(dataset(write_rows(tmp_path / "d.jsonl", odd)))
    assert subset.num_empty_rows == 3
    assert sorted(documents(subset, "train") + documents(subset, "validation")) == sorted(
        t for t in odd if t and t.strip()
    )


@pytest.mark.parametrize("name", ["missing.txt", "./missing", "/nowhere/at/all", "~/no/such/folder", "a b c"])
def test_a_path_that_is_not_there_is_refused_and_not_asked_of_the_hub(dataset: Choose, name: str) -> None:
    with pytest.raises(DatasetError, match="does not exist; give a file or folder"):
        check_dataset(dataset(name))
