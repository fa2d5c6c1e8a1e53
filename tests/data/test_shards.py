"""Tests of token shards: the stream's layout, its offsets, and that they are made once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lightlm.data import shards as shards_module
from lightlm.data.shards import open_shards, tokenize_subset
from lightlm.data.subset import TextSubset, materialize_subset
from lightlm.data.tokenization.tokenizer import Tokenizer, prepare_tokenizer
from lightlm.errors import CorruptError, DatasetError
from lightlm.params import DatasetParams, load_params
from lightlm.store.home import find_home
from tests.data.conftest import make_document


@pytest.fixture
def tokenizer(subset: TextSubset) -> Tokenizer:
    return prepare_tokenizer(find_home(), load_params().tokenizer, subset, [300])


def test_the_stream_is_end_of_text_then_documents_each_ended(
    subset: TextSubset, tokenizer: Tokenizer
) -> None:
    shards = tokenize_subset(find_home(), subset, tokenizer)
    wanted = [tokenizer.end_of_text_id]
    for document in subset.read_documents("train"):
        wanted += [*tokenizer.encode(document.decode()), tokenizer.end_of_text_id]
    stream = shards.tokens("train")
    assert stream[0 : len(stream)].tolist() == wanted
    assert shards.num_train_tokens == len(wanted)
    assert shards.dtype == "<u2"


def test_running_text_is_one_stream(tmp_path: Path, dataset: Callable[..., DatasetParams]) -> None:
    path = tmp_path / "book.txt"
    path.write_text("\n\n".join(make_document(i) for i in range(100)))
    subset = materialize_subset(find_home(), dataset(path))
    tokenizer = prepare_tokenizer(find_home(), load_params().tokenizer, subset, [300])
    shards = tokenize_subset(find_home(), subset, tokenizer)
    stream = shards.tokens("train")[0 : shards.num_train_tokens].tolist()
    assert [stream[0], stream[-1]] == [tokenizer.end_of_text_id] * 2
    assert stream.count(tokenizer.end_of_text_id) == 2, "one file is one document"
    assert tokenizer.decode(stream) == b"".join(subset.read_documents("train")).decode()


def test_a_table_of_two_short_rows_is_refused_before_anything_is_planned(
    tmp_path: Path, dataset: Callable[..., DatasetParams]
) -> None:
    path = tmp_path / "two.csv"
    path.write_text("title,body\na,hello there\nb,more text\n")
    subset = materialize_subset(find_home(), dataset(path))
    tokenizer = prepare_tokenizer(find_home(), load_params().tokenizer, subset, [300])
    with pytest.raises(DatasetError, match=r"tokens to train on, .* needs 9; give more text$"):
        tokenize_subset(find_home(), subset, tokenizer)


def test_offsets_say_where_each_held_out_document_starts(
    subset: TextSubset, tokenizer: Tokenizer
) -> None:
    shards = tokenize_subset(find_home(), subset, tokenizer)
    offsets = shards.validation_offsets()
    held_out = list(subset.read_documents("validation"))
    assert len(offsets) == len(held_out) + 1 == shards.num_validation_documents + 1
    tokens = shards.tokens("validation")

    for index, document in enumerate(held_out):
        start = int(offsets[index, 0])
        end = int(offsets[index + 1, 0])
        assert tokenizer.decode_bytes(tokens[start:end].tolist()) == document

    assert shards.validation_text() == b"".join(held_out)
    assert shards.validation_text(1) == held_out[0]
    assert int(offsets[-1, 1]) == shards.num_validation_bytes == subset.num_validation_bytes


def test_shards_are_made_once_and_verified(subset: TextSubset, tokenizer: Tokenizer) -> None:
    first = tokenize_subset(find_home(), subset, tokenizer)
    second = tokenize_subset(find_home(), subset, tokenizer)
    assert (first.reused, second.reused) == (False, True)
    assert open_shards(first.folder).num_train_tokens == first.num_train_tokens
    path = first.folder / "train-00000.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CorruptError):
        open_shards(first.folder)
    assert not tokenize_subset(find_home(), subset, tokenizer).reused


def test_slices_cross_the_borders_of_files(
    subset: TextSubset, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tokenize_subset(find_home(), subset, tokenizer)
    wanted = whole.tokens("train")[0 : whole.num_train_tokens]
    monkeypatch.setattr(shards_module, "SHARD_TOKENS", 1000)
    monkeypatch.setattr(shards_module, "FORMAT", 999)
    cut = tokenize_subset(find_home(), subset, tokenizer)
    assert len(list(cut.folder.glob("train-*.bin"))) > 3
    stream = cut.tokens("train")
    assert np.array_equal(stream[0 : len(stream)], wanted)
    assert np.array_equal(stream[995:2010], wanted[995:2010])
    assert len(stream[5:5]) == 0
