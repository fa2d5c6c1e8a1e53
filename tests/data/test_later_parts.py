"""Tests of later parts: together they are the text, a run that dies finds them, and a refusal is
said.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lightlm.data import encoding
from lightlm.data.later_parts import PartWriter, find_failure, list_later, open_part
from lightlm.data.shards import TokenShards, open_shards, tokenize_subset
from lightlm.data.subset import TextSubset, materialize_subset
from lightlm.data.token_array import TokenArray
from lightlm.data.tokenization.tokenizer import Tokenizer, prepare_tokenizer
from lightlm.params import DatasetParams, load_params
from lightlm.store.home import find_home
from tests.data.conftest import make_document


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "CHUNK_BYTES", 2_000)
    monkeypatch.setattr(encoding, "FIRST_BYTES", 8_000)


@pytest.fixture
def text(tmp_path: Path, dataset: Callable[..., DatasetParams]) -> TextSubset:
    path = tmp_path / "stories.jsonl"
    rows = (json.dumps({"text": make_document(index)}) + "\n" for index in range(400))
    path.write_text("".join(rows), encoding="utf-8")
    return materialize_subset(find_home(), dataset(path))


@pytest.fixture
def tokenizer(text: TextSubset) -> Tokenizer:
    return prepare_tokenizer(find_home(), load_params().tokenizer, text, [400])


def split_documents(tokens: TokenArray, end: int) -> Iterator[tuple[int, ...]]:
    ids = tokens[0 : len(tokens)]
    borders = np.flatnonzero(ids == end)
    for start, stop in itertools.pairwise(borders):
        yield tuple(ids[start + 1 : stop].tolist())


def write_later(shards: TokenShards, tokenizer: Tokenizer, folder: Path) -> PartWriter:
    with PartWriter(find_home(), shards, tokenizer, folder) as writer:
        assert writer._thread is not None
        writer._thread.join()
    return writer


def test_first_and_later_parts_are_the_text(
    text: TextSubset, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    shards = tokenize_subset(find_home(), text, tokenizer)
    whole = tokenize_subset(find_home(), text, tokenizer, is_whole=True)
    assert len(shards.later) >= 3 and whole.later == ()
    assert len(shards.tokens("train")) < 0.2 * len(whole.tokens("train"))
    assert shards.num_train_tokens == pytest.approx(whole.num_train_tokens, rel=0.05)
    assert open_shards(shards.folder).later == shards.later

    written = write_later(shards, tokenizer, tmp_path)
    parts = [shards.tokens("train"), *map(open_part, list_later(shards))]
    end = tokenizer.end_of_text_id
    found = itertools.chain(*(split_documents(part, end) for part in parts))
    assert sorted(found) == sorted(split_documents(whole.tokens("train"), end))
    first = sum(int(chunk.lengths.sum()) for chunk in encoding.cut_parts(text)[0])
    assert written.num_bytes == text.num_bytes - first and written.seconds > 0


def test_a_run_that_resumes_finds_the_parts_that_are_there(
    text: TextSubset, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    shards = tokenize_subset(find_home(), text, tokenizer)
    write_later(shards, tokenizer, tmp_path)
    second = list_later(shards)[1]
    content = (second / "train-00000.bin").read_bytes()
    for path in second.iterdir():
        path.unlink()
    second.rmdir()

    again = tokenize_subset(find_home(), text, tokenizer)
    assert again.reused and again.later == shards.later
    written = write_later(again, tokenizer, tmp_path)
    assert 0 < written.num_bytes < 0.5 * text.num_bytes
    assert (second / "train-00000.bin").read_bytes() == content


def test_a_refusal_is_left_for_training_to_say(
    text: TextSubset, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    shards = tokenize_subset(find_home(), text, tokenizer)
    text.text_path("train").unlink()
    said: list[str] = []
    with PartWriter(find_home(), shards, tokenizer, tmp_path, report=said.append) as writer:
        assert writer._thread is not None
        writer._thread.join()
        assert "train.text" in str(find_failure(tmp_path))
    assert "the rest of the text is not tokenized" in said[0]


def test_a_small_text_has_one_part(
    subset: TextSubset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "FIRST_BYTES", 1 << 25)
    tokenizer = prepare_tokenizer(find_home(), load_params().tokenizer, subset, [400])
    shards = tokenize_subset(find_home(), subset, tokenizer)
    with PartWriter(find_home(), shards, tokenizer, tmp_path) as writer:
        assert writer.num_bytes == 0
    assert shards.later == () and find_failure(tmp_path) is None
