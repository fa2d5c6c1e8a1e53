"""Inputs of kinds that were read wrongly once: each gives its own text, whole, or an error with
what to do.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from lightlm.data.files.record import DataRecord
from lightlm.data.look import look_at
from lightlm.data.subset import TextSubset, materialize_subset
from lightlm.errors import DatasetError
from lightlm.params import DatasetParams
from lightlm.store.home import find_home
from tests.data.conftest import make_document

Choose = Callable[..., DatasetParams]
TEXTS = [make_document(seed) for seed in range(40)]


def lines_of(rows: list[object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(path: Path, text: str) -> Path:
    path.write_text(text, newline="")
    return path


def record_of(params: DatasetParams) -> DataRecord:
    return look_at(params).record


def documents(subset: TextSubset) -> set[str]:
    return {
        text.decode() for split in ("train", "validation") for text in subset.read_documents(split)
    }


def test_a_torn_last_row_of_a_short_file_is_left_out_and_said(
    tmp_path: Path, dataset: Choose
) -> None:
    rows = lines_of([{"text": text} for text in TEXTS])
    for name, content in {
        "a.jsonl": rows + '{"text": "The last one is to',
        "b.jsonl": rows[: len(rows) // 2].rpartition("\n")[0] + '\n{"text": "torn\n' + rows,
        "c.json": json.dumps([{"text": text} for text in TEXTS])[:-40],
    }.items():
        record = record_of(dataset(write(tmp_path / name, content)))
        assert record.replaced_bytes == 0
        assert record.documents in (39, 40)
        assert record.warnings == ["1 broken or torn row was left out"]


def test_every_line_that_is_a_list_of_messages_is_a_conversation(
    tmp_path: Path, dataset: Choose
) -> None:
    rows = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": text[::-1]}]
        for text in TEXTS
    ]
    subset = materialize_subset(
        find_home(), dataset(write(tmp_path / "a.jsonl", lines_of(list(rows))))
    )
    wanted = [f"User: {text}\n\nAssistant: {text[::-1]}" for text in TEXTS]
    assert subset.record.train_bytes + subset.record.validation_bytes == sum(map(len, wanted))
    assert all(any(piece in text for text in wanted) for piece in documents(subset))
    assert any(note.startswith("Chat records") for note in subset.record.sources[0].notes)


def test_arrays_one_after_the_other_are_all_read(tmp_path: Path, dataset: Choose) -> None:
    pages = [[{"text": text} for text in TEXTS[start : start + 10]] for start in range(0, 40, 10)]
    assert documents(
        materialize_subset(find_home(), dataset(write(tmp_path / "a.jsonl", lines_of(list(pages)))))
    ) == set(TEXTS)


def test_texts_under_their_ids_are_rows(tmp_path: Path, dataset: Choose) -> None:
    content = json.dumps({f"note{number}": text for number, text in enumerate(TEXTS)})
    assert documents(
        materialize_subset(find_home(), dataset(write(tmp_path / "a.json", content)))
    ) == set(TEXTS)


def test_titles_are_not_taken_for_the_text_that_stands_deeper(
    tmp_path: Path, dataset: Choose
) -> None:
    rows = [{"title": f"Of {text[:9]} and", "paragraphs": [{"context": text}]} for text in TEXTS]
    path = write(tmp_path / "a.json", json.dumps({"data": rows}))
    with pytest.raises(
        DatasetError, match=r"most of the text stands in paragraphs.*--text-column title"
    ):
        look_at(dataset(path))
    assert record_of(dataset(path, text_column="title")).column == "title"


def test_a_header_with_a_trailing_separator_is_no_row(tmp_path: Path, dataset: Choose) -> None:
    rows = "id,text,\n" + "".join(f'{number},"{text}",\n' for number, text in enumerate(TEXTS))
    subset = materialize_subset(find_home(), dataset(write(tmp_path / "a.csv", rows)))
    assert subset.record.column == "text"
    assert documents(subset) == set(TEXTS)


@pytest.mark.parametrize(
    "border", ["\n  <|endoftext|>  \n", "\r\n\t<|endoftext|>\r\n", "\r<|endoftext|>\r"]
)
def test_blanks_and_line_ends_around_a_border_do_not_matter(
    tmp_path: Path, dataset: Choose, border: str
) -> None:
    subset = materialize_subset(find_home(), dataset(write(tmp_path / "a.txt", border.join(TEXTS))))
    assert {text.strip() for text in documents(subset)} == set(TEXTS)
    assert subset.record.documents == len(TEXTS)


def make_text(size: int, line: str, blank: str) -> str:
    draw = random.Random(size)
    words = ["".join(draw.choices("abcdefghij", k=draw.randrange(2, 9))) for _ in range(size // 5)]
    marks = draw.choices([" ", line, blank], [30, 2, 1], k=len(words))
    return "".join(map("".join, zip(words, marks, strict=True)))[:size]


@pytest.mark.parametrize(
    ("line", "blank"),
    [("\n", "\n\n"), ("\r", "\r\r"), (" ", " "), ("\x85", "\x85\x85"), ("\u2028", "\u2029")],
)
@pytest.mark.parametrize("size", [600, 1000, 3000, 9000, 30_000, 90_000])
@pytest.mark.parametrize("suffix", ["txt", "jsonl"])
def test_the_held_out_share_is_bounded_and_words_stay_whole(
    tmp_path: Path, dataset: Choose, size: int, line: str, blank: str, suffix: str
) -> None:
    text = make_text(size, line, blank)
    path = tmp_path / f"a.{suffix}"
    write(path, text if suffix == "txt" else lines_of([{"text": text}]))
    subset = materialize_subset(find_home(), dataset(path))
    record = subset.record
    total = record.train_bytes + record.validation_bytes
    assert total == len(text.encode())
    assert 0 < record.held_out_share <= (0.25 if total < 20_000 else 0.1)
    assert {word for piece in documents(subset) for word in piece.split()} == set(text.split())


def test_a_second_table_whose_text_cannot_be_told_is_warned_of(
    tmp_path: Path, dataset: Choose
) -> None:
    write(tmp_path / "a.jsonl", lines_of([{"text": text} for text in TEXTS]))
    write(tmp_path / "b.jsonl", lines_of([{"left": text, "right": text[::-1]} for text in TEXTS]))
    record = record_of(dataset(tmp_path))
    assert [row.path for row in record.sources] == ["a.jsonl"]
    assert record.warnings[0].startswith(
        "1 of 2 json files are left out, as b.jsonl: has 2 columns of text (left: "
    )
