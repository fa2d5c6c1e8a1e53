"""Tests of a tokenizer as llama.cpp has it: the right model and rule with equal tokens on hard
texts, or a refusal.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from lightlm.data.tokenization.hard_texts import HARD_TEXTS, surround
from lightlm.data.tokenization.tokenizer import load_tokenizer
from lightlm.data.tokenization.trial import adopt
from lightlm.errors import ModelVersionError
from lightlm.model.llama_vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    RULES,
    SPACE_SYMBOL,
    USER_DEFINED,
    LlamaTokenizer,
    describe_vocabulary,
    overlap,
)
from tests.data.tokenizer_files import BYTE_LEVEL, added, byte_level, sentencepiece, train_tokenizer

PLAIN = BYTE_LEVEL | {"use_regex": False}
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def split(pattern: str) -> dict[str, Any]:
    step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [step, PLAIN]}


def by_digits(digits: str) -> dict[str, Any]:
    return split(
        f"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|{LETTERS}|{digits}|{REST}"
    )


OTHER_RULES = (
    (
        "smollm",
        {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL],
        },
    ),
    ("qwen2", by_digits(r"\p{N}")),
    ("qwen2", split(f"{CONTRACTIONS}|{LETTERS}|\\p{{N}}|{REST}")),
    ("smaug-bpe", by_digits(r"\p{N}{1,3}")),
    ("gpt-2", BYTE_LEVEL),
)


@pytest.mark.parametrize(
    ("name", "pre_tokenizer"),
    OTHER_RULES,
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_rule_is_found_by_the_pieces_that_it_makes(
    name: str, pre_tokenizer: dict[str, Any]
) -> None:
    values = byte_level(pre_tokenizer=pre_tokenizer)
    vocabulary = describe_vocabulary(json.dumps(values), 260)
    assert (vocabulary.model, vocabulary.rule) == ("gpt2", name)
    assert vocabulary.merges == ["h e", "\u0120 he"]
    assert vocabulary.types == [NORMAL] * 258 + [CONTROL, 5]
    assert vocabulary.tokens[258:] == ["<|endoftext|>", "[PAD259]"]


def test_our_own_tokenizer_is_llama_bpe_with_equal_tokens_on_every_hard_text(
    tmp_path: Path,
) -> None:
    text = "".join(HARD_TEXTS) * 2 + " the old river 1914 and 30000 men it's we'll\n\n" * 50
    engine = train_tokenizer(tmp_path / "tokenizer.json", text, 900)
    vocabulary = describe_vocabulary(engine.to_str(), 900)
    assert vocabulary.rule == "llama-bpe"
    theirs = LlamaTokenizer(vocabulary)
    ours = load_tokenizer(tmp_path)
    for hard in [*HARD_TEXTS, *surround(["1914", "<|endoftext|>"])]:
        assert theirs.encode(hard) == ours.encode(hard), hard


@pytest.mark.parametrize(
    "pre_tokenizer",
    [by_digits(r"\p{N}{1,2}"), by_digits(r"\p{N}{1,4}"), PLAIN],
    ids=["two digits", "four digits", "no rule"],
)
def test_a_rule_that_llama_cpp_does_not_have_is_refused_with_what_to_do(
    pre_tokenizer: dict[str, Any],
) -> None:
    with pytest.raises(
        ModelVersionError,
        match=r"no splitting rule of llama\.cpp.*--to hf.*tokenizer\.source=train",
    ):
        describe_vocabulary(json.dumps(byte_level(pre_tokenizer=pre_tokenizer)), 259)


def test_added_tokens_are_cut_out_the_longest_first_as_llama_cpp_does(tmp_path: Path) -> None:
    values = byte_level()
    values["added_tokens"] += [added(259, "ab"), added(260, "bcd"), added(261, "  ")]
    vocabulary = describe_vocabulary(json.dumps(values), 262)
    assert vocabulary.types[258:] == [CONTROL, USER_DEFINED, USER_DEFINED, USER_DEFINED]
    assert overlap(["ab", "bcd"]) == ["abcd"]
    theirs = LlamaTokenizer(vocabulary)
    assert theirs.encode("abcd")[1:] == [260]
    assert theirs.encode("ab  <|endoftext|>")[:2] == [259, 261]
    assert 258 not in theirs.encode("<|endoftext|>")


def test_sentencepiece_is_llamas_model_with_scores_types_and_equal_tokens(tmp_path: Path) -> None:
    adopted = adopt(json.dumps(sentencepiece()).encode(), "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text(adopted.text)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": adopted.end}))
    ours = load_tokenizer(tmp_path)
    vocabulary = describe_vocabulary(adopted.text, ours.vocab_size)
    assert (vocabulary.model, vocabulary.rule) == ("llama", "default")
    types = dict(zip(vocabulary.tokens, vocabulary.types, strict=True))
    assert (types["</s>"], types["<0x0A>"], types[SPACE_SYMBOL + "the"]) == (CONTROL, BYTE, NORMAL)
    scores = dict(zip(vocabulary.tokens, vocabulary.scores, strict=True))
    assert 0 > scores[SPACE_SYMBOL + "t"] > scores[SPACE_SYMBOL + "the"]
    assert scores["a"] == 0
    theirs = LlamaTokenizer(vocabulary)
    for text in [*HARD_TEXTS, "the hat  is this that\n"]:
        if SPACE_SYMBOL not in text:
            assert theirs.encode(text) == ours.encode(text), text


def test_sentencepiece_with_other_merges_than_its_entries_give_is_refused() -> None:
    values = sentencepiece()
    values["model"]["merges"].pop(0)
    with pytest.raises(
        ModelVersionError, match=r"joins entries .* in ways that this model's does not"
    ):
        describe_vocabulary(adopt(json.dumps(values).encode(), "tokenizer.json").text, 400)


def test_every_rule_has_a_name_of_its_own() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
