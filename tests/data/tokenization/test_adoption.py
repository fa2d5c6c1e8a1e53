"""Tests of tokenizers from elsewhere: every text comes back, byte for byte, or they are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from lightlm.data.tokenization.hard_texts import HARD_TEXTS, surround
from lightlm.data.tokenization.tokenizer import (
    Tokenizer,
    check_tokenizer_source,
    load_tokenizer,
    prepare_tokenizer,
)
from lightlm.errors import TokenizerError
from lightlm.params import TokenizerParams, load_params
from lightlm.store.home import find_home
from tests.data.tokenizer_files import (
    ALPHABET,
    BYTE_LEVEL,
    SPACE,
    added,
    byte_level,
    describe_model,
    sentencepiece,
)

METASPACE = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}
DIGITS = {"type": "Split", "pattern": {"Regex": r"\d"}, "behavior": "Isolated", "invert": False}
WHITESPACE = {"type": "Split", "pattern": {"Regex": r"\s+"}, "behavior": "Removed", "invert": False}
PADDING = {"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
           "pad_token": "h"}  # fmt: skip
TRUNCATION = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}


def extended(*tokens: dict[str, Any]) -> dict[str, Any]:
    values = byte_level()
    return values | {"added_tokens": values["added_tokens"] + list(tokens)}


def with_prefix() -> dict[str, Any]:
    return byte_level(pre_tokenizer=BYTE_LEVEL | {"add_prefix_space": True})


def by_entry() -> dict[str, Any]:
    """An entry that no merge makes, taken for a word whole: here the one that ends a text."""
    values = byte_level(pre_tokenizer=BYTE_LEVEL | {"use_regex": False})
    values["model"]["ignore_merges"] = True
    values["model"]["vocab"]["<|endoftext|>"] = values["added_tokens"][0]["id"]
    return values


def dropping() -> dict[str, Any]:
    values = byte_level()
    values["model"]["dropout"] = 0.3
    return values


LOSSLESS = {
    "plain": (byte_level(), None),
    "a token with letters of Latin-1": (
        extended(added(259, "caf\u00e9"), added(260, "Z\u00fcrich")),
        "text now",
    ),
    "a token that swallows spaces": (
        extended(added(259, "@user", lstrip=True, rstrip=True)),
        "swallow",
    ),
    "a special token that swallows spaces": (
        extended(added(259, "<mask>", special=True, lstrip=True)),
        "swallow",
    ),
    "a token of words alone": (extended(added(259, "user", single_word=True)), None),
    "tokens of white space": (extended(added(259, "\n\n"), added(260, "    ")), None),
    "a normalized token": (extended(added(259, "user", normalized=True)), None),
    "NFC": (byte_level(normalizer={"type": "NFC"}), r"NFC"),
    "NFKC and lowercase": (
        byte_level(
            normalizer={
                "type": "Sequence",
                "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}],
            }
        ),
        "Lowercase, NFKC",
    ),
    "dropout": (dropping(), "dropout of 0.3"),
    "a gap in the ids": (extended(added(90_000, "<extra>", special=True)), "gaps"),
    "truncation and padding": (
        byte_level(padding=PADDING, truncation=TRUNCATION),
        "truncation and padding",
    ),
    "a space before a text": (with_prefix(), "no space is put"),
    "an end of text that is an entry": (by_entry(), "ignore_merges"),
    "Llama 2": (sentencepiece(), "spaces are kept"),
    "Llama 2 without most bytes": (sentencepiece(num_bytes=3), "253 of 256"),
    "Mistral": (sentencepiece(normalizer=None, pre_tokenizer=METASPACE), "spaces are kept"),
    "Gemma": (
        sentencepiece(
            normalizer={"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
            pre_tokenizer={
                "type": "Split",
                "pattern": {"String": " "},
                "behavior": "MergedWithPrevious",
                "invert": False,
            },
        ),
        "spaces are kept",
    ),
    "digits cut before a Metaspace": (
        sentencepiece(
            normalizer=None,
            pre_tokenizer={"type": "Sequence", "pretokenizers": [DIGITS, METASPACE]},
        ),
        "spaces are kept",
    ),
    "characters alone": (
        byte_level(
            pre_tokenizer=None,
            decoder=None,
            model=describe_model({"a": 0, "b": 1, "ab": 2}, [("a", "b")]),
        ),
        "256 of 256",
    ),
}

UNIGRAM = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], [SPACE + "the", -3.0]]}
WORDS = {"unk_token": "[UNK]", "vocab": {"[UNK]": 0, "the": 1}}
LOSSY = {
    "Unigram": (
        sentencepiece(model=UNIGRAM, normalizer=None, pre_tokenizer=METASPACE),
        "Unigram .* byte fallback",
    ),
    "WordPiece": (
        byte_level(
            pre_tokenizer={"type": "Whitespace"},
            model=WORDS
            | {
                "type": "WordPiece",
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
            },
        ),
        "a WordPiece tokenizer, loses text",
    ),
    "WordLevel": (
        byte_level(pre_tokenizer=None, model=WORDS | {"type": "WordLevel"}),
        "a WordLevel tokenizer, loses",
    ),
    "white space that is removed": (
        byte_level(pre_tokenizer={"type": "Sequence", "pretokenizers": [WHITESPACE, BYTE_LEVEL]}),
        "loses text",
    ),
    "a mark at the end of words": (
        byte_level(
            model=describe_model({s: i for i, s in enumerate(ALPHABET)}, end_of_word_suffix="</w>")
        ),
        "loses text",
    ),
    "spaces and marks for the same": (
        sentencepiece(model=describe_model({" a": 0, SPACE + "a": 1}, byte_fallback=True)),
        "no text can tell apart",
    ),
}


def write(folder: Path, values: Any) -> TokenizerParams:
    (folder / "tokenizer.json").write_text(json.dumps(values))
    return load_params(overrides={"tokenizer.source": str(folder)}).tokenizer


def adopt(folder: Path, values: Any) -> tuple[Tokenizer, list[str]]:
    said: list[str] = []
    return prepare_tokenizer(
        find_home(), write(folder, values), None, [300], report=said.append
    ), said  # pyright: ignore


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTLM_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(("values", "note"), LOSSLESS.values(), ids=LOSSLESS)
def test_every_text_comes_back_and_what_was_changed_is_said(
    tmp_path: Path, values: Any, note: str | None
) -> None:
    from transformers import AutoTokenizer

    tokenizer, said = adopt(tmp_path, values)
    texts = [*HARD_TEXTS, *surround(token["content"] for token in values["added_tokens"])]
    encoded = tokenizer.encode_batch(texts)
    for text, ids in zip(texts, encoded, strict=True):
        assert tokenizer.decode_bytes(ids) == text.encode(), text
        assert tokenizer.end_of_text_id not in ids

    assert (
        max(map(max, filter(None, encoded)))
        < tokenizer.vocab_size
        <= 1 + len(values["model"]["vocab"]) + 256 + 3
    )
    assert any(note in one for one in said) if note else not said
    theirs = AutoTokenizer.from_pretrained(tokenizer.folder, split_special_tokens=True)
    for text in ("the hat  is\tcaf\u00e9 @user 12345\n\n", " that", "KING:\u2581thou\u2581hast"):
        assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(("values", "message"), LOSSY.values(), ids=LOSSY)
def test_one_that_loses_text_is_refused_with_what_to_do_before_anything_else(
    tmp_path: Path, values: Any, message: str
) -> None:
    with pytest.raises(TokenizerError, match=message + ".*tokenizer.source=train"):
        check_tokenizer_source(find_home(), write(tmp_path, values))


def test_notes_are_said_in_every_run_that_takes_the_tokenizer(tmp_path: Path) -> None:
    first = adopt(tmp_path, byte_level(normalizer={"type": "NFC"}))
    again = adopt(tmp_path, byte_level(normalizer={"type": "NFC"}))
    assert (first[0].reused, again[0].reused) == (False, True)
    assert first[1] == again[1]


def test_the_end_of_text_is_the_configs_then_a_known_one_then_a_new_one(tmp_path: Path) -> None:
    values = extended(added(259, "</s>", special=True), added(260, "<|fin|>", special=True))
    assert adopt(tmp_path, values)[0].engine.id_to_token(258) == "<|endoftext|>"
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": {"content": "<|fin|>"}})
    )
    assert adopt(tmp_path, values)[0].end_of_text_id == 260
    (tmp_path / "tokenizer_config.json").write_text("[")
    assert (
        adopt(tmp_path, values | {"added_tokens": [added(258, "</s>", special=True)]})[
            0
        ].end_of_text_id
        == 258
    )

    fresh, _ = adopt(tmp_path, values | {"added_tokens": []})
    assert fresh.end_of_text_id == 258
    assert fresh.engine.id_to_token(258) == "<|endoftext|>"


def test_an_id_is_the_bytes_of_its_kind_of_token(tmp_path: Path) -> None:
    tokenizer, _ = adopt(tmp_path, sentencepiece())
    newline = tokenizer.encode("\n")
    space = tokenizer.encode(" the")
    assert tokenizer.engine.id_to_token(newline[0]) == "<0x0A>"
    assert tokenizer.decode_bytes(newline) == b"\n"
    assert len(space) == 1
    assert tokenizer.decode_bytes(space) == b" the"
    assert (
        b"".join(tokenizer.decode_bytes([index]) for index in tokenizer.encode("\u4e2d"))
        == "\u4e2d".encode()
    )


def test_a_version_that_was_adopted_before_reads_as_text(tmp_path: Path) -> None:
    """Such folders kept SentencePiece's own parts; their spaces were written as marks, their bytes
    as <0x0A>.
    """
    (tmp_path / "tokenizer.json").write_text(json.dumps(sentencepiece()))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    old = load_tokenizer(tmp_path)
    assert old.decode(old.encode("the hat\nthis")) == " the hat\nthis"
