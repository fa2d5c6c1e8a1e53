"""Tests of what a tokenizer.json may ask for: malformed and hostile ones are one line, at once, in
any process.
"""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from lightlm.data.tokenization import trial as tokenizer_trial
from lightlm.data.tokenization.checks import (
    MAX_BYTES,
    parse_tokenizer,
    read_end_of_text,
    read_tokenizer_file,
)
from lightlm.data.tokenization.hard_texts import HARD_TEXTS
from lightlm.data.tokenization.tokenizer import load_tokenizer, prepare_tokenizer
from lightlm.errors import TokenizerError
from lightlm.params import load_params
from lightlm.store.home import find_home
from tests.data.tokenizer_files import BYTE_LEVEL, added, byte_level, describe_model


def nest(depth: int) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": [nest(depth - 1)] if depth else [BYTE_LEVEL]}


def split(pattern: str) -> dict[str, Any]:
    step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return byte_level(
        pre_tokenizer={
            "type": "Sequence",
            "pretokenizers": [step, BYTE_LEVEL | {"use_regex": False}],
        }
    )


def model(**fields: Any) -> dict[str, Any]:
    return byte_level(model=describe_model({"a": 0}) | fields)


GROWING = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 40}

MALFORMED = {
    "nothing": b"",
    "half of one": b'{"model": {"type": "BPE", "vocab": {"a"',
    "not UTF-8": b"\xff\xfe\x00",
    "deep brackets": b"[" * 100_000,
    "deep objects": b'{"a":' * 5_000,
    "a list": b"[1]",
    "no model": {"version": "1.0"},
    "a model that is a string": {"model": "BPE"},
    "a model that is null": {"model": None},
    "a model of another type": model(type="Markov"),
    "no vocabulary": {"model": {"type": "BPE", "merges": []}},
    "a vocabulary that is a list": model(vocab=["a"]),
    "an empty vocabulary": model(vocab={}),
    "ids that are strings": model(vocab={"a": "0"}),
    "an id twice": model(vocab={"a": 1, "b": 1}),
    "a negative id": model(vocab={"a": -1}),
    "an id of four billion": model(vocab={"a": 0, "b": 4_000_000_000}),
    "an id of nine hundred million": model(vocab={"a": 0, "b": 900_000_000}),
    "an added id of four billion": byte_level(added_tokens=[added(4_000_000_000, "x")]),
    "merges of three": model(merges=[["a", "b", "c"]]),
    "merges that are numbers": model(merges=[1]),
    "an added token without content": byte_level(added_tokens=[{"id": 300}]),
    "an empty added token": byte_level(added_tokens=[added(300, "")]),
    "added tokens that are a string": byte_level(added_tokens="x"),
    "added tokens that are numbers": byte_level(added_tokens=[1]),
    "a pre_tokenizer that is a number": byte_level(pre_tokenizer=7),
    "deep sequences": byte_level(pre_tokenizer=nest(40)),
    "a back reference": split(r"(a+)\1"),
    "a call": split(r"(?<x>a\g<x>?b)"),
    "repeats of repeats": split("(?:a{1000}){1000}"),
    "a long pattern": split("a" * 10_000),
    "a text that grows": byte_level(
        normalizer={"type": "Sequence", "normalizers": [GROWING, GROWING]}
    ),
    "scores without names": {
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0], ["b"]]}
    },
}

UNBUILDABLE = {
    "a merge of what is no entry": model(merges=[["a", "b"]]),
    "a part of another type": byte_level(pre_tokenizer={"type": "Magic"}),
    "a pattern that is none": split("("),
    "a pattern that backtracks": split(r"(\w+\w+)+y"),
}


def encode(values: Any) -> bytes:
    return values if isinstance(values, bytes) else json.dumps(values).encode()


@pytest.mark.parametrize("values", MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_or_asks_too_much_is_refused_by_a_look_at_it(
    values: Any, tmp_path: Path
) -> None:
    started = time.process_time()
    with pytest.raises(TokenizerError, match=r"tokenizer\.source=train") as raised:
        parse_tokenizer(encode(values), "tokenizer.json")
    assert time.process_time() - started < 1.0
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500
    (tmp_path / "tokenizer.json").write_bytes(encode(values))
    with pytest.raises(TokenizerError):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("values", UNBUILDABLE.values(), ids=UNBUILDABLE)
def test_what_cannot_be_built_or_panics_ends_as_one_line(values: Any, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(encode(values))
    with pytest.raises(TokenizerError, match=r"cannot be used.*tokenizer\.source=train") as raised:
        prepare_tokenizer(
            find_home(),
            load_params(overrides={"tokenizer.source": str(tmp_path)}).tokenizer,
            None,
            [300],
        )  # pyright: ignore
    assert "\n" not in str(raised.value)


def test_a_panic_while_a_text_is_encoded_is_an_error_of_the_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(encode(split(r"(\w+\w+)+y")))
    tokenizer = load_tokenizer(tmp_path)
    with pytest.raises(TokenizerError, match="cannot encode a text"):
        tokenizer.encode_batch(HARD_TEXTS)


def test_a_trial_that_takes_too_long_or_too_much_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_trial, "SECONDS", 0.01)
    with pytest.raises(TokenizerError, match="took more than"):
        tokenizer_trial.adopt(encode(byte_level()), "tokenizer.json")


def test_a_child_that_dies_is_an_error_of_the_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_trial.sys, "executable", "/bin/false")
    with pytest.raises(TokenizerError, match="exit code 1"):
        tokenizer_trial.adopt(encode(byte_level()), "tokenizer.json")


def test_a_file_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(TokenizerError, match="longer than 64 MiB"):
        read_tokenizer_file(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    ("config", "end"),
    [
        ({"eos_token": "</s>"}, "</s>"),
        ({"eos_token": {"content": "<e>"}}, "<e>"),
        ({"eos_token": 3}, None),
        ([], None),
    ],
)
def test_the_end_of_text_of_a_config_is_a_string_or_an_object(config: Any, end: str | None) -> None:
    assert read_end_of_text(config) == end
