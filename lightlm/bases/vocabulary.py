"""The tokenizer of a base: its end-of-text token, whether its ids stay, and the tokenizer.json that
a GGUF file's fields amount to.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lightlm.data.tokenization.adoption import LIKELY_ENDS
from lightlm.data.tokenization.trial import adopt
from lightlm.errors import ModelVersionError
from lightlm.json_object import JsonObject
from lightlm.model.llama_vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    RULES,
    SPACE_SYMBOL,
    USER_DEFINED,
    LlamaVocabulary,
    cut_entries,
)


def choose_end(values: Mapping[str, Any], named: str | None) -> str | None:
    """Return the token between documents: what pretraining usually puts there, else the one that
    the tokenizer names. A chat's end of turn is no end of a document.
    """
    special = [token["content"] for token in values.get("added_tokens") or []]
    likely = [end for end in LIKELY_ENDS[:3] if end in special]
    return likely[0] if likely else named


def make_lossless(content: bytes, source: str, named: str | None) -> tuple[str, str, list[str]]:
    """Return the tokenizer that training reads text with, its end of text, and what was changed:
    no text is lost, and each entry keeps its id.

    Raises:
        ModelVersionError: an entry would get another id.
        TokenizerError: it loses text, however it is rewritten.
    """
    try:
        values = json.loads(content)
        end = choose_end(values, named)
    except (ValueError, LookupError, TypeError, AttributeError):
        values, end = {}, named  # adopting it says what is wrong
    adopted = adopt(content, source, end)
    before = list_ids(values)
    after = list_ids(json.loads(adopted.text))
    for token, index in before.items():
        # An entry that spells its space otherwise there keeps its place.
        found = after.get(token, after.get(token.replace(SPACE_SYMBOL, " "), index))
        if found != index:
            raise ModelVersionError(
                f"{source}: the entry {token!r} of its tokenizer would get the id {found} instead "
                f"of {index}; its ids have gaps, so give a base whose ids have none"
            )
    return adopted.text, adopted.end, list(adopted.notes)


def list_ids(values: Mapping[str, Any]) -> dict[str, int]:
    """Return the ids of a tokenizer.json's entries, added ones included."""
    vocab = values["model"]["vocab"]
    if not isinstance(vocab, dict):
        vocab = {entry[0]: index for index, entry in enumerate(vocab)}
    return dict(vocab) | {
        token["content"]: token["id"] for token in values.get("added_tokens") or []
    }


def build_tokenizer(vocabulary: LlamaVocabulary, source: str) -> JsonObject:
    """Return the tokenizer.json of a GGUF file's fields.

    Raises:
        ModelVersionError: its model or its splitting rule is not known here.
    """
    if len(vocabulary.types) != len(vocabulary.tokens):
        raise ModelVersionError(
            f"{source} has {len(vocabulary.types)} token types for {len(vocabulary.tokens)} "
            "tokens; download it again"
        )

    ids = {token: index for index, token in enumerate(vocabulary.tokens)}
    if vocabulary.model == "gpt2":
        model, parts = _build_bytes(vocabulary, ids, source)
    elif vocabulary.model == "llama" and vocabulary.scores:
        model, parts = _build_pieces(vocabulary, ids)
    else:
        raise ModelVersionError(
            f"{source} has a tokenizer of the kind {vocabulary.model!r}; wanted gpt2 or llama: "
            "give the model's Hugging Face folder instead"
        )

    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _list_added(vocabulary),
        "post_processor": None,
        **parts,
        "model": model,
    }


def _list_added(vocabulary: LlamaVocabulary) -> list[JsonObject]:
    return [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == CONTROL,
        }
        for index, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if kind in (CONTROL, USER_DEFINED)
    ]


def _build_bytes(
    vocabulary: LlamaVocabulary, ids: Mapping[str, int], source: str
) -> tuple[JsonObject, JsonObject]:
    rule = next((rule for rule in RULES if rule.name == vocabulary.rule), None)
    if rule is None:
        known = ", ".join(rule.name for rule in RULES)
        raise ModelVersionError(
            f"{source} cuts text by the rule {vocabulary.rule!r} of llama.cpp; known here are "
            f"{known}: give the model's Hugging Face folder instead"
        )

    splits = [
        {
            "type": "Split",
            "pattern": {"Regex": pattern},
            "behavior": "Isolated",
            "invert": False,
        }
        for pattern in rule.patterns
    ]
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    model = _describe_bpe(ids, [merge.split(" ", 1) for merge in vocabulary.merges])
    model["ignore_merges"] = rule.ignores_merges
    return model, {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, level]},
        "decoder": level,
    }


def _build_pieces(
    vocabulary: LlamaVocabulary, ids: Mapping[str, int]
) -> tuple[JsonObject, JsonObject]:
    """Return SentencePiece's tokenizer as transformers writes it: merges in the order of scores."""
    kinds = vocabulary.types
    entries = {token: index for token, index in ids.items() if kinds[index] in (NORMAL, BYTE)}
    scores: Sequence[float] = vocabulary.scores
    pairs = sorted(cut_entries(entries), key=lambda pair: -scores[entries["".join(pair)]])
    model = _describe_bpe(ids, [list(pair) for pair in pairs])
    model |= {"byte_fallback": True, "fuse_unk": True}
    marks = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE_SYMBOL}
    spaces = {"type": "Replace", "pattern": {"String": SPACE_SYMBOL}, "content": " "}
    return model, {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": SPACE_SYMBOL}, marks],
        },
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                spaces,
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
    }


def _describe_bpe(ids: Mapping[str, int], merges: list[list[str]]) -> JsonObject:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": dict(ids),
        "merges": merges,
    }
