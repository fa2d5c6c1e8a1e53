"""Tests of encoding: the ids are those of tokenizers, whatever the engine, the processes and the
chunks.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from lightlm.data import encoding
from lightlm.data.encoding import (
    Chunk,
    Encoder,
    EnginesDiffer,
    cut_chunks,
    describe_job,
    encode_documents,
    open_fast_engine,
)
from lightlm.data.processes import Worker
from lightlm.data.shards import tokenize_subset
from lightlm.data.subset import TextSubset, materialize_subset
from lightlm.data.tokenization.hard_texts import TRIAL
from lightlm.data.tokenization.tokenizer import Tokenizer, prepare_tokenizer
from lightlm.params import DatasetParams, load_params
from lightlm.store.home import find_home

TEXTS = [
    *(TRIAL[start : start + 40] for start in range(0, len(TRIAL), 25)),
    "<|endoftext|> and <|endoftext|>twice",
    "  two\n\n\nlines \t x'LL DON'T 1234567890 __init__(self) -> None:",
    "\u4e2d\u6587\u3042\u3044 \u0628\u0627 \U0001f469\u200d\U0001f4bb e\u0301 \x00\x7f "
    "\ufffd\ufeff",
    *("".join(map(chr, range(start, start + 64))) for start in range(0x80, 0x2000, 64)),
]


@pytest.fixture
def subset(tmp_path: Path, dataset: Callable[..., DatasetParams]) -> TextSubset:
    path = tmp_path / "texts.jsonl"
    path.write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in TEXTS * 2), encoding="utf-8"
    )
    return materialize_subset(find_home(), dataset(path))


@pytest.fixture
def tokenizer(subset: TextSubset) -> Tokenizer:
    return prepare_tokenizer(find_home(), load_params().tokenizer, subset, [400])


def encode_all(
    subset: TextSubset, tokenizer: Tokenizer, **options: object
) -> tuple[list[int], list[int]]:
    found = list(encode_documents(subset, "train", tokenizer, "<u2", **options))
    ids = np.frombuffer(b"".join(chunk.ids for chunk in found), dtype="<u2").tolist()
    return ids, np.concatenate([chunk.counts for chunk in found]).tolist()


def wanted(subset: TextSubset, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    each = [
        [*tokenizer.encode(text.decode()), tokenizer.end_of_text_id]
        for text in subset.read_documents("train")
    ]
    return [index for ids in each for index in ids], [len(ids) for ids in each]


def test_the_faster_engine_gives_the_ids_of_tokenizers(tokenizer: Tokenizer) -> None:
    encode = open_fast_engine(tokenizer)
    assert encode is not None
    for text in TEXTS:
        assert list(encode(text)) == tokenizer.encode(text)


@pytest.mark.parametrize("blank", ["\xa0", "\x0c", "\u2009", "\u3000"])
def test_words_after_odd_white_space_cost_no_second_pass(
    tmp_path: Path, dataset: Callable[..., DatasetParams], blank: str
) -> None:
    path = tmp_path / "letters.jsonl"
    texts = (f"Dear Mr.{blank}Palmer and Mrs.{blank}Palmer, {index} " * 30 for index in range(40))
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    letters = materialize_subset(find_home(), dataset(path, duplicates="keep"))
    tokenizer = prepare_tokenizer(find_home(), load_params().tokenizer, letters, [400])

    encode = open_fast_engine(tokenizer)
    first = next(letters.read_documents("train")).decode()
    # Else tokie has learned the rule, and `has_odd_blank` can go.
    assert encode is not None and list(encode(first)) != tokenizer.encode(first)
    assert encode_all(letters, tokenizer) == wanted(letters, tokenizer)


@pytest.mark.parametrize("num_processes", [1, 2])
def test_ids_and_counts_are_those_of_each_document_in_order(
    subset: TextSubset, tokenizer: Tokenizer, num_processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "CHUNK_BYTES", 500)
    assert encode_all(subset, tokenizer, num_processes=num_processes) == wanted(subset, tokenizer)
    assert encode_all(subset, tokenizer, num_processes=1, is_fast=False) == wanted(
        subset, tokenizer
    )


def test_an_engine_that_differs_is_found_out_and_left(
    subset: TextSubset, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shift(_: Tokenizer) -> Callable[[str], Sequence[int]]:
        return lambda text: [index ^ 1 for index in tokenizer.encode(text)]

    monkeypatch.setattr(encoding, "open_fast_engine", shift)
    with pytest.raises(EnginesDiffer):
        encode_all(subset, tokenizer)
    said: list[str] = []
    shards = tokenize_subset(find_home(), subset, tokenizer, report=said.append)
    assert (
        shards.tokens("train")[1 : shards.num_train_tokens].tolist() == wanted(subset, tokenizer)[0]
    )

    assert "other ids" in said[0]


def test_a_missing_engine_leaves_tokenizers(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Encoder(tokenizer).engine == "tokie"
    monkeypatch.setitem(sys.modules, "tokie", None)
    assert Encoder(tokenizer).engine == "tokenizers"


def test_tokens_that_are_cut_out_of_the_text_leave_tokenizers(tokenizer: Tokenizer) -> None:
    tokenizer.engine.add_tokens(["wor ld"])
    assert open_fast_engine(tokenizer) is None


def test_a_process_that_dies_loses_nothing(subset: TextSubset, tokenizer: Tokenizer) -> None:
    path = subset.text_path("train")
    job = describe_job(tokenizer, path, "<u4", 0)
    chunk = next(cut_chunks(subset.read_lengths("train"), subset.read_ends("train")))
    request = [np.array([chunk.offset]), chunk.lengths, chunk.ends]
    with Worker(job) as worker, path.open("rb") as text:
        first = worker.answer(request)
        assert worker.process is not None
        os.kill(worker.process.pid, signal.SIGKILL)
        again = worker.answer(request)
        here = Encoder(tokenizer).encode(text, chunk, "<u4", 0)

    assert first[1].tobytes() == again[1].tobytes() == here.ids
    assert first[0].tolist() == here.counts.tolist()


def test_chunks_cover_the_documents_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "CHUNK_BYTES", 100)
    blocks = [np.array([30, 60, 50, 400, 1]), np.array([], dtype=np.int64), np.array([99, 1, 1])]
    ends = np.array([True, False, False, True, True, False, True, True])
    chunks: list[Chunk] = list(cut_chunks(iter(blocks), ends))
    assert np.concatenate([chunk.ends for chunk in chunks]).tolist() == ends.tolist()
    assert np.concatenate([chunk.lengths for chunk in chunks]).tolist() == [
        30,
        60,
        50,
        400,
        1,
        99,
        1,
        1,
    ]

    assert [chunk.offset for chunk in chunks] == [0, 90, 140, 540, 541, 641]
    assert all(chunk.lengths.sum() <= 100 or len(chunk.lengths) == 1 for chunk in chunks)
