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
from lightlm.store.home import find_home
from tests.data.conftest import make_document

Choose = Callable[..., DatasetParams]


def write_rows(path: Path, texts: list[str | None]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def documents(subset: TextSubset, split: str) -> list[str]:
    return [one.decode() for one in subset.read_documents(split)]


def test_every_document_is_on_exactly_one_side(tmp_path: Path, dataset: Choose) -> None:
    texts = [make_document(i) for i in range(200)]
    subset = materialize_subset(find_home(), dataset(write_rows(tmp_path / "d.jsonl", list(texts))))
    train = documents(subset, "train")
    held_out = documents(subset, "validation")
    assert sorted(train + held_out) == sorted(texts)
    assert 1 <= len(held_out) <= 30
    assert subset.validation_sha256 == hashlib.sha256("".join(held_out).encode()).hexdigest()
    assert subset.num_bytes == sum(len(text.encode()) for text in train)


def test_the_split_of_a_document_does_not_change_when_others_come(
    tmp_path: Path, dataset: Choose
) -> None:
    texts = [make_document(i) for i in range(300)]
    small = materialize_subset(
        find_home(), dataset(write_rows(tmp_path / "a.jsonl", list(texts[:200])))
    )
    large = materialize_subset(
        find_home(), dataset(write_rows(tmp_path / "b.jsonl", list(reversed(texts))))
    )
    assert set(documents(small, "validation")) <= set(documents(large, "validation"))
    assert not set(documents(small, "train")) & set(documents(large, "validation"))


def test_copies_never_stand_on_both_sides(tmp_path: Path, dataset: Choose) -> None:
    texts = [make_document(i % 40) for i in range(200)]
    subset = materialize_subset(find_home(), dataset(write_rows(tmp_path / "d.jsonl", list(texts))))
    assert not set(documents(subset, "train")) & set(documents(subset, "validation"))


def test_training_copies_of_a_given_validation_split_are_removed_and_counted(
    tmp_path: Path, dataset: Choose
) -> None:
    held_out = [make_document(i) for i in range(5)]
    train = [make_document(i) for i in range(3, 50)]
    pq.write_table(pa.table({"text": train}), tmp_path / "train-0.parquet")
    pq.write_table(pa.table({"text": held_out}), tmp_path / "validation-0.parquet")
    subset = materialize_subset(find_home(), dataset(tmp_path))
    assert documents(subset, "validation") == held_out
    assert documents(subset, "train") == train[2:]
    assert subset.record.exact_duplicates == 2


def test_rows_that_are_lines_are_joined_as_they_stand(tmp_path: Path, dataset: Choose) -> None:
    train = [
        "",
        " = Title = \n",
        "",
        *(f" {make_document(i)} \n" for i in range(100)),
        "",
        " = = Part = = \n",
    ]

    held_out = ["", *(f" {make_document(1000 + i)} \n" for i in range(30))]
    pq.write_table(pa.table({"text": train}), tmp_path / "train-0.parquet")
    pq.write_table(pa.table({"text": held_out}), tmp_path / "validation-0.parquet")
    subset = materialize_subset(find_home(), dataset(tmp_path))
    assert subset.is_running_text
    assert "".join(documents(subset, "train")) == "".join(train)
    assert "".join(documents(subset, "validation")) == "".join(held_out)
    assert subset.num_validation_bytes == sum(len(row.encode()) for row in held_out)


def test_a_plain_text_loses_nothing_but_what_is_held_out(tmp_path: Path, dataset: Choose) -> None:
    content = (
        "\n\n".join(f"{make_document(i)}\n{make_document(i + 500)}" for i in range(100)) + "\n"
    )
    path = tmp_path / "book.txt"
    path.write_text(content)
    subset = materialize_subset(find_home(), dataset(path))
    pieces = documents(subset, "train") + documents(subset, "validation")
    assert sum(map(len, pieces)) == len(content)
    assert all(piece in content for piece in pieces)
    assert len(documents(subset, "validation")) >= 1


def test_a_subset_says_how_much_it_is_of_the_whole(tmp_path: Path, dataset: Choose) -> None:
    path = write_rows(tmp_path / "d.jsonl", [make_document(i) for i in range(1500)])
    part = materialize_subset(find_home(), dataset(path, max_documents=20))
    assert part.summary().startswith("Using subset: 20 of 1,500 documents")
    assert part.num_documents == 20
    assert (
        materialize_subset(find_home(), dataset(path))
        .summary()
        .startswith("Using all 1,500 documents")
    )


def test_max_bytes_ends_the_reading_early(tmp_path: Path, dataset: Choose) -> None:
    path = write_rows(tmp_path / "d.jsonl", [make_document(i) for i in range(500)])
    limited = materialize_subset(find_home(), dataset(path, max_bytes=10_000))
    assert 10_000 <= limited.num_bytes < 11_000
    assert materialize_subset(find_home(), dataset(path), needed_bytes=[20_000]).num_bytes < 21_000


def test_validation_is_capped_at_a_documents_end(tmp_path: Path, dataset: Choose) -> None:
    pq.write_table(
        pa.table({"text": [make_document(i) for i in range(50)]}), tmp_path / "train-0.parquet"
    )
    held_out = [make_document(1000 + i) for i in range(50)]
    pq.write_table(pa.table({"text": held_out}), tmp_path / "validation-0.parquet")
    subset = materialize_subset(
        find_home(), dataset(tmp_path, max_validation_bytes=2000, validation_split="validation")
    )
    taken = documents(subset, "validation")
    assert taken == held_out[: len(taken)]
    assert 1500 < sum(map(len, taken)) <= 2000


def test_the_second_materialization_is_from_the_store(tmp_path: Path, dataset: Choose) -> None:
    path = write_rows(tmp_path / "d.jsonl", [make_document(i) for i in range(50)])
    first = materialize_subset(find_home(), dataset(path))
    second = materialize_subset(find_home(), dataset(path))
    assert (first.reused, second.reused) == (False, True)
    assert first.fingerprint == second.fingerprint
    assert documents(open_subset(first.folder), "train") == documents(second, "train")
    write_rows(path, [make_document(i) for i in range(51)])
    assert materialize_subset(find_home(), dataset(path)).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no text"),
        (["", None, "  "], "no column of text"),
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
        materialize_subset(find_home(), params)


def test_a_text_smaller_than_the_context_is_refused_at_a_glance(
    tmp_path: Path, dataset: Choose
) -> None:
    params = dataset(write_rows(tmp_path / "d.jsonl", ["a few", "words"]))
    with pytest.raises(DatasetError, match="context_length 512"):
        check_dataset(params, context_length=512)


def test_odd_corpora_train_and_are_counted(tmp_path: Path, dataset: Choose) -> None:
    texts = [make_document(i) for i in range(300)]
    long = " ".join(map(str, range(100_000)))
    odd = [*texts, "a\x00b" * 50, "line\r\nline\r\n" * 5, "\ufeffbom " * 50, long, None, "", " \n "]
    subset = materialize_subset(find_home(), dataset(write_rows(tmp_path / "d.jsonl", odd)))
    assert subset.record.empty_rows == 3
    pieces = documents(subset, "train") + documents(subset, "validation")
    assert sum(map(len, pieces)) == sum(len(text) for text in odd if text and text.strip())
    assert set(texts) < set(pieces), "only the long one is cut"


def write_files(folder: Path, texts: dict[str, str]) -> Path:
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


def test_files_end_documents_and_no_two_words_are_glued(tmp_path: Path, dataset: Choose) -> None:
    texts = {f"n{index:02d}.txt": make_document(index) for index in range(60)}
    subset = materialize_subset(find_home(), dataset(write_files(tmp_path / "notes", texts)))
    assert subset.record.documents == 60
    assert subset.read_ends("train").all() and subset.read_ends("validation").all()
    assert sorted(documents(subset, "train") + documents(subset, "validation")) == sorted(
        texts.values()
    )


def test_of_two_documents_the_large_one_is_cut_and_never_held_out_whole(
    tmp_path: Path, dataset: Choose
) -> None:
    for size in (5, 20, 60, 200):
        large = "\n\n".join(make_document(index) for index in range(size))
        small = make_document(1000 + size)
        subset = materialize_subset(
            find_home(), dataset(write_rows(tmp_path / f"{size}.jsonl", [large, small]))
        )
        share = subset.record.held_out_share
        assert 0 < share <= (0.25 if len(large) + len(small) < 20_000 else 0.1)


def test_notes_with_split_words_in_their_names_are_all_trained_on(
    tmp_path: Path, dataset: Choose
) -> None:
    names = (
        "dev notes.md",
        "driving test.md",
        "Val Gardena trip.md",
        "train journey.md",
        "garden.md",
    )

    texts = {
        name: "\n\n".join(make_document(100 * number + index) for index in range(30))
        for number, name in enumerate(names)
    }
    record = materialize_subset(find_home(), dataset(write_files(tmp_path / "notes", texts))).record
    assert [(row.path, row.used, row.split) for row in record.sources] == [
        (n, True, "train") for n in sorted(names)
    ]

    assert record.held_out_share <= 0.1


def test_a_test_split_that_is_not_used_is_said(tmp_path: Path, dataset: Choose) -> None:
    texts = {
        "train.txt": "\n\n".join(map(make_document, range(99))),
        "valid.txt": make_document(200),
    }
    folder = write_files(tmp_path / "text", texts | {"test.txt": make_document(300)})
    subset = materialize_subset(find_home(), dataset(folder))
    assert documents(subset, "validation") == [texts["valid.txt"]]
    assert [(one.path, one.reason) for one in subset.record.left_out] == [
        ("test.txt", "the split test, which is not used")
    ]

    assert "the split test is not used (1 file)" in list(subset.record.summary_lines())
    together = materialize_subset(find_home(), dataset(folder, validation_split="none"))
    assert together.record.documents == 3


def test_a_split_of_more_than_three_tenths_is_refused_with_both_ways_on(
    tmp_path: Path, dataset: Choose
) -> None:
    texts = {"train.txt": make_document(1), "dev.txt": "\n\n".join(map(make_document, range(2, 9)))}
    folder = write_files(tmp_path / "text", texts)
    with pytest.raises(
        DatasetError, match=r"are 8.% of the text .*--set dataset\.validation_split=none"
    ):
        check_dataset(dataset(folder))
    assert (
        materialize_subset(
            find_home(), dataset(folder, validation_split="dev")
        ).num_validation_bytes
        > 1000
    )
    assert (
        materialize_subset(
            find_home(), dataset(folder, validation_split="none")
        ).record.held_out_share
        <= 0.25
    )


def test_repeated_posts_count_once_and_their_copies_are_counted(
    tmp_path: Path, dataset: Choose
) -> None:
    posts = [make_document(index % 60) for index in range(3000)]
    subset = materialize_subset(
        find_home(), dataset(write_rows(tmp_path / "posts.jsonl", list(posts)))
    )
    assert subset.record.documents == 60
    assert subset.record.exact_duplicates == 2940
    assert subset.num_bytes + subset.num_validation_bytes == sum(map(len, set(posts)))


@pytest.mark.parametrize("change", ["white space", "last line"])
def test_no_near_copy_of_a_held_out_document_is_trained_on(
    tmp_path: Path, dataset: Choose, change: str
) -> None:
    def vary(text: str, copy: int) -> str:
        return (
            text.replace(" ", "  " * copy or " ")
            if change == "white space"
            else f"{text}\nReply {copy}."
        )

    posts = [vary(make_document(index), copy) for copy in range(3) for index in range(200)]
    subset = materialize_subset(find_home(), dataset(write_rows(tmp_path / "posts.jsonl", posts)))
    assert subset.record.held_out_share <= 0.1
    core = [
        " ".join(text.partition("\nReply")[0].split()) for text in documents(subset, "validation")
    ]

    trained = [
        " ".join(text.partition("\nReply")[0].split()) for text in documents(subset, "train")
    ]
    assert core and not set(core) & set(trained)
    assert len(core) + len(trained) == 200
    kept = materialize_subset(find_home(), dataset(tmp_path / "posts.jsonl", duplicates="keep"))
    assert kept.record.near_duplicates == 0


def test_a_text_that_repeats_itself_stays_whole(tmp_path: Path, dataset: Choose) -> None:
    lines = [
        f"The miller went over bridge number {index % 7}, for he wished to be early."
        for index in range(400)
    ]
    path = tmp_path / "refrains.txt"
    path.write_text("\n\n".join(f"{line} ({index})" for index, line in enumerate(lines)))
    record = materialize_subset(find_home(), dataset(path)).record
    assert record.train_bytes + record.validation_bytes == path.stat().st_size
    assert record.held_out_share <= 0.1


def test_rows_that_cannot_be_decoded_are_refused_with_the_option_that_takes_them(
    tmp_path: Path, dataset: Choose
) -> None:
    path = tmp_path / "rows.txt"
    good = "".join(f"caf\u00e9 {make_document(index)}\n\n" for index in range(210)).encode()
    path.write_bytes(good + b"".join(b"broken \xe9 \xff line %d\n\n" % index for index in range(5)))
    with pytest.raises(
        DatasetError,
        match=r"% of the rows hold bytes that are not utf-8.*--set dataset\.encoding=utf-8",
    ):
        materialize_subset(find_home(), dataset(path))
    taken = materialize_subset(find_home(), dataset(path, encoding="utf-8"))
    assert taken.record.replaced_bytes == 10
    assert any("10 bytes could not be decoded" in warning for warning in taken.record.warnings)


def test_stories_between_borders_are_documents(tmp_path: Path, dataset: Choose) -> None:
    path = tmp_path / "stories.txt"
    stories = [make_document(index) for index in range(150)]
    path.write_text("\n<|endoftext|>\n".join(stories))
    subset = materialize_subset(find_home(), dataset(path))
    assert subset.record.documents == 150
    assert not subset.is_running_text
    assert sorted(
        text.strip() for text in documents(subset, "train") + documents(subset, "validation")
    ) == sorted(stories)


def test_the_larger_kind_of_a_folder_wins_and_the_other_is_named(
    tmp_path: Path, dataset: Choose
) -> None:
    notes = {f"note{index}.md": make_document(index) for index in range(20)}
    table = "item,comment\n" + "".join(
        f"lamp{index},A lamp for the desk number {index}.\n" for index in range(9)
    )
    folder = write_files(
        tmp_path / "notes",
        notes | {"expenses.csv": table, "package.json": "{}", "tool.py": "x = 1"},
    )
    record = materialize_subset(find_home(), dataset(folder)).record
    assert record.documents == 20
    assert {one.path for one in record.left_out} == {"expenses.csv", "package.json", "tool.py"}


@pytest.mark.parametrize(
    "name", ["missing.txt", "./missing", "/nowhere/at/all", "~/no/such/folder", "a b c"]
)
def test_a_path_that_is_not_there_is_refused_and_not_asked_of_the_hub(
    dataset: Choose, name: str
) -> None:
    with pytest.raises(DatasetError, match="does not exist; give a file or folder"):
        check_dataset(dataset(name))


def test_a_forecast_reads_a_sample_and_tells_the_whole_from_it(
    tmp_path: Path, dataset: Choose
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [make_document(index) for index in range(2000)])
    whole = materialize_subset(find_home(), dataset(rows))
    assert (whole.is_cut, whole.whole_bytes) == (False, whole.num_bytes)

    write_rows(
        tmp_path / "more.jsonl",
        [make_document(index) for index in range(2000)] + ["One row more. " * 9],
    )
    sample = materialize_subset(
        find_home(), dataset(tmp_path / "more.jsonl"), sample_bytes=whole.num_bytes // 4
    )
    assert sample.is_cut
    assert sample.num_bytes < whole.num_bytes / 3
    assert sample.whole_bytes == pytest.approx(whole.num_bytes, rel=0.1)
    assert sample.readable_bytes(10_000, 1.0) == 10_000
    assert sample.readable_bytes(10**9, 1.0) == sample.whole_bytes


def test_a_subset_that_a_run_left_is_taken_rather_than_a_sample(
    tmp_path: Path, dataset: Choose
) -> None:
    chosen = dataset(
        write_rows(tmp_path / "rows.jsonl", [make_document(index) for index in range(2000)])
    )
    whole = materialize_subset(find_home(), chosen)
    again = materialize_subset(find_home(), chosen, sample_bytes=whole.num_bytes // 4)
    assert again.reused
    assert again.fingerprint == whole.fingerprint
