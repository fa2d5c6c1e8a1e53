"""Tests of the tokenizer: it loses nothing, parses no special token out of text, and is what
transformers loads.
"""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Engine
from tokenizers import decoders, models, pre_tokenizers

from lightlm.data.subset import TextSubset
from lightlm.data.tokenization.tokenizer import (
    END_OF_TEXT,
    Tokenizer,
    check_tokenizer_source,
    load_tokenizer,
    prepare_tokenizer,
)
from lightlm.errors import TokenizerError
from lightlm.params import TokenizerParams, load_params
from lightlm.store.home import find_home


def params(source: str = "train") -> TokenizerParams:
    return load_params(overrides={"tokenizer.source": source}).tokenizer


@pytest.fixture
def tokenizer(subset: TextSubset) -> Tokenizer:
    return prepare_tokenizer(find_home(), params(), subset, [300])


def byte_level(symbols: list[str]) -> Engine:
    engine = Engine(models.BPE({symbol: index for index, symbol in enumerate(symbols)}, []))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    return engine


@given(text=st.text(max_size=200))
@settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= index < tokenizer.vocab_size for index in ids)


def test_no_entry_is_lost_to_the_rule_that_a_word_is_its_entry(
    tokenizer: Tokenizer, subset: TextSubset
) -> None:
    """llama-bpe takes a word that is an entry whole; other programs merge: both come to the same
    ids.
    """
    values = json.loads(tokenizer.engine.to_str())
    assert values["model"]["ignore_merges"]
    values["model"]["ignore_merges"] = False
    merging = Engine.from_str(json.dumps(values))
    texts = [document.decode() for document in subset.read_documents("train")]
    texts += [
        tokenizer.decode([index])
        for index in range(tokenizer.vocab_size)
        if index != tokenizer.end_of_text_id
    ]

    for text in texts:
        assert merging.encode(text).ids == tokenizer.encode(text)


@given(
    parts=st.lists(
        st.sampled_from([END_OF_TEXT, "<|endof", "text|>", " ", "word", "\n", "</s>"]), max_size=8
    )
)
@settings(
    max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_special_tokens_in_text_are_text(tokenizer: Tokenizer, parts: list[str]) -> None:
    text = "".join(parts)
    ids = tokenizer.encode(text)
    assert tokenizer.end_of_text_id not in ids
    assert tokenizer.decode(ids) == text


def test_a_batch_is_encoded_as_each_text_alone(tokenizer: Tokenizer) -> None:
    texts = ["one river", "", f"a {END_OF_TEXT} b", "\U0001f600"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


def test_lone_surrogates_become_the_replacement_character(tokenizer: Tokenizer) -> None:
    assert "\ufffd" in tokenizer.decode(tokenizer.encode("a\ud800b"))


def test_half_a_character_decodes_to_its_bytes(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("\u4e2d")
    assert b"".join(tokenizer.decode_bytes([index]) for index in ids) == "\u4e2d".encode()


def test_the_vocabulary_has_the_size_asked_for_or_what_the_text_gives(subset: TextSubset) -> None:
    assert prepare_tokenizer(find_home(), params(), subset, [290]).vocab_size == 290
    assert 257 < prepare_tokenizer(find_home(), params(), subset, [50_000]).vocab_size < 2_000


def test_the_second_preparation_is_from_the_store(subset: TextSubset) -> None:
    first = prepare_tokenizer(find_home(), params(), subset, [300])
    second = prepare_tokenizer(find_home(), params(), subset, [300])
    assert (first.reused, second.reused) == (False, True)
    assert (
        first.fingerprint
        == second.fingerprint
        != prepare_tokenizer(find_home(), params(), subset, [301]).fingerprint
    )


def test_transformers_loads_the_folder_with_equal_ids(tokenizer: Tokenizer) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tokenizer.folder)
    for text in ("the old river", "  two  spaces\n\n", "\u4e2d\u6587 123456 caf\u00e9"):
        assert theirs(text)["input_ids"] == tokenizer.encode(text)
    assert theirs.eos_token_id == tokenizer.end_of_text_id


def test_a_loaded_tokenizer_that_lacks_bytes_is_completed(
    tmp_path: Path, subset: TextSubset
) -> None:
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())[:-21]
    byte_level(symbols).save(str(tmp_path / "tokenizer.json"))
    said: list[str] = []
    loaded = prepare_tokenizer(
        find_home(), params(str(tmp_path)), subset, [300], report=said.append
    )
    every_byte = bytes(range(256)).decode("latin-1")
    assert loaded.decode(loaded.encode(every_byte)) == every_byte
    assert loaded.vocab_size == 257
    assert len(said) == 1
    assert "21 of 256" in said[0]
    file = prepare_tokenizer(find_home(), params(str(tmp_path / "tokenizer.json")), subset, [300])
    assert file.fingerprint == loaded.fingerprint


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", '{"model": {"type": "WordPiece", "vocab": {}}}']
)
def test_a_file_that_is_no_byte_level_tokenizer_is_refused(
    tmp_path: Path, subset: TextSubset, content: str
) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerError):
        prepare_tokenizer(find_home(), params(str(tmp_path)), subset, [300])


def test_a_tokenizer_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="does not exist"):
        check_tokenizer_source(find_home(), params(str(tmp_path / "none.json")))
    with pytest.raises(TokenizerError, match=r"holds no tokenizer\.json"):
        load_tokenizer(tmp_path)
    check_tokenizer_source(find_home(), params())


def test_a_folder_without_end_of_text_is_refused(tmp_path: Path) -> None:
    byte_level(sorted(pre_tokenizers.ByteLevel.alphabet())).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match="end-of-text"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "a"}))
    assert load_tokenizer(tmp_path).end_of_text_id >= 0
