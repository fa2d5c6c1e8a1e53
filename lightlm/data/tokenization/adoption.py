"""A tokenizer from elsewhere, rewritten so that no text is lost: what is left out, added and
renamed.

Models are trained from scratch here, so nothing has to stay as it was but how text is cut.
Normalizers, dummy prefixes and stripping flags go, missing bytes come, a symbol for the space
becomes the space. Whether a text then comes back is not decided here but tried (tokenizer_trial).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lightlm.data.tokenization.token_bytes import (
    BYTE_SYMBOLS,
    BYTE_TOKEN,
    find_space_symbol,
    is_byte_level,
    list_parts,
    symbols_to_bytes,
)
from lightlm.errors import TokenizerError
from lightlm.json_object import JsonObject

END_OF_TEXT = "<|endoftext|>"
LIKELY_ENDS = (END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>", "<|im_end|>", "<|eos|>", "[EOS]")

BYTE_LEVEL_DECODER = {
    "type": "ByteLevel",
    "add_prefix_space": True,
    "trim_offsets": True,
    "use_regex": True,
}
BYTE_FALLBACK_DECODER = {
    "type": "Sequence",
    "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}],
}
WORDS_AT_SPACES = {
    "type": "Split",
    "pattern": {"String": " "},
    "behavior": "MergedWithNext",
    "invert": False,
}
"""Metaspace's pre-tokenizer for spaces that stay spaces."""


@dataclass
class Adoption:
    """A tokenizer.json's values as they will be stored, its end-of-text token, and what a person
    should know.
    """

    values: JsonObject
    end: str
    notes: list[str] = field(default_factory=list)


def rewrite(values: JsonObject, named_end: str | None = None) -> Adoption:
    """Rewrite the values of a tokenizer.json in place; `named_end` is the end of text that its
    config names.

    Raises:
        TokenizerError: its vocabulary cannot be made to hold every text.
    """
    adoption = Adoption(values, END_OF_TEXT)
    if values.get("truncation") or values.get("padding"):
        adoption.notes.append("truncation and padding are off: every text is encoded whole")

    values["truncation"] = values["padding"] = values["post_processor"] = None
    model = values["model"]
    if model.get("dropout"):
        adoption.notes.append(f"dropout of {model['dropout']} is off: a text has one encoding")
    if "dropout" in model:
        model["dropout"] = None

    values["added_tokens"] = [dict(token) for token in values.get("added_tokens") or []]
    if _has_gaps(values):
        adoption.notes.append(
            "its ids had gaps, or were given twice; they are numbered anew, from 0"
        )

    if is_byte_level(values):
        _keep_bytes(adoption)
    elif model["type"] in ("BPE", "Unigram"):
        _keep_text(adoption)

    _mend_added_tokens(adoption)
    _choose_end(adoption, named_end)
    _number_ids(adoption)
    return adoption


def _keep_bytes(adoption: Adoption) -> None:
    """Rewrite a byte-level tokenizer: nothing before its bytes changes text, and no byte is
    missing.
    """
    values = adoption.values
    model = adoption.values["model"]
    normalizers = list(list_parts(values.get("normalizer")))
    _leave_out(adoption, [part for part in normalizers if part.get("type") != "ByteLevel"])
    values["normalizer"] = _join(
        "normalizers", [part for part in normalizers if part.get("type") == "ByteLevel"]
    )

    parts = list(list_parts(values.get("pre_tokenizer")))
    for part in parts:
        if part.get("type") == "ByteLevel" and part.get("add_prefix_space"):
            part["add_prefix_space"] = False
            adoption.notes.append("no space is put before a text any more")

    values["pre_tokenizer"] = _join("pretokenizers", parts)
    values["decoder"] = BYTE_LEVEL_DECODER
    if isinstance(model["vocab"], dict):
        _add_missing(adoption, sorted(BYTE_SYMBOLS))


def _keep_text(adoption: Adoption) -> None:
    """Rewrite a tokenizer of characters, as SentencePiece makes them: spaces stay spaces, the
    unknown becomes bytes.

    Raises:
        TokenizerError: it is a Unigram model without byte fallback.
    """
    values = adoption.values
    model = adoption.values["model"]
    if model["type"] == "Unigram" and not model.get("byte_fallback"):
        raise TokenizerError(
            "is a Unigram tokenizer without byte fallback, which loses characters it does not know"
        )

    symbol = find_space_symbol(values)
    normalizers = list(list_parts(values.get("normalizer")))
    _leave_out(adoption, [part for part in normalizers if not _only_marks_spaces(part, symbol)])
    parts = []
    is_marked = any(_only_marks_spaces(part, symbol) for part in normalizers)

    for part in list_parts(values.get("pre_tokenizer")):
        if part.get("type") == "Metaspace":
            is_marked = True
            parts += [dict(WORDS_AT_SPACES)] if part.get("split", True) else []
        elif is_marked and " " in (part.get("pattern") or {}).get("String", ""):
            continue  # never matched: spaces were marked before it
        else:
            parts.append(_unmark(part, symbol) if is_marked else part)

    values["normalizer"], values["pre_tokenizer"] = None, _join("pretokenizers", parts)
    values["decoder"] = BYTE_FALLBACK_DECODER
    if symbol is not None:
        _rename_spaces(adoption, symbol)
        adoption.notes.append(
            f"spaces are kept as they are: {symbol!r} stood for them, and one was put before a text"
        )

    model["byte_fallback"] = True
    if isinstance(model["vocab"], dict):
        _add_missing(adoption, [f"<0x{byte:02X}>" for byte in range(256)])


def _leave_out(adoption: Adoption, parts: list[JsonObject]) -> None:
    names = sorted({str(part.get("type")) for part in parts})
    if names:
        adoption.notes.append(
            f"its normalization ({', '.join(names)}) is left out, because it changes text"
        )


def _only_marks_spaces(part: Mapping[str, Any], symbol: str | None) -> bool:
    """Return whether a normalizer does no more than to write a symbol for spaces, or one before the
    text.
    """
    if symbol is None:
        return False
    if part.get("type") == "Replace":
        return (part.get("pattern") or {}).get("String") == " " and part.get("content") == symbol
    return part.get("type") == "Prepend" and part.get("prepend") in (symbol, " ")


def _unmark(part: JsonObject, symbol: str | None) -> JsonObject:
    pattern = part.get("pattern")
    if symbol is None or not isinstance(pattern, dict):
        return part
    return part | {
        "pattern": {kind: str(text).replace(symbol, " ") for kind, text in pattern.items()}
    }


def _rename_spaces(adoption: Adoption, symbol: str) -> None:
    """Write spaces in the vocabulary where a symbol stands for them; then that symbol in a text is
    itself again.
    """
    model = adoption.values["model"]
    vocab = model["vocab"]
    entries = list(vocab.items()) if isinstance(vocab, dict) else [tuple(entry) for entry in vocab]
    renamed = [(token.replace(symbol, " "), value) for token, value in entries]

    if len({token for token, _ in renamed}) < len(renamed):
        raise TokenizerError(
            f"has entries that differ in {symbol!r} and the space alone, which no text can tell "
            "apart"
        )

    model["vocab"] = dict(renamed) if isinstance(vocab, dict) else renamed
    if "merges" in model:
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        model["merges"] = [[token.replace(symbol, " ") for token in pair] for pair in pairs]

    known = {token for token, _ in renamed}
    added = adoption.values["added_tokens"]
    adoption.values["added_tokens"] = [
        token
        for token in added
        if symbol not in token["content"] or token["content"].replace(symbol, " ") not in known
    ]


def _add_missing(adoption: Adoption, symbols: list[str]) -> None:
    """Add a token for each byte that the vocabulary has none for, after all others."""
    vocab: dict[str, int] = adoption.values["model"]["vocab"]
    missing = [symbol for symbol in symbols if symbol not in vocab]
    if not missing:
        return
    ids = [*vocab.values(), *(token["id"] for token in adoption.values["added_tokens"])]
    first_free = max(ids) + 1
    vocab.update({symbol: first_free + index for index, symbol in enumerate(missing)})
    adoption.notes.append(
        f"it had no token for {len(missing)} of 256 bytes; they were added, so that no text is lost"
    )


def _mend_added_tokens(adoption: Adoption) -> None:
    """Let added tokens be cut out of a text as they stand, with nothing around them; one that is
    another's is none.
    """
    added = adoption.values["added_tokens"]
    if any(token.get("lstrip") or token.get("rstrip") for token in added):
        adoption.notes.append(
            "added tokens no longer swallow the white space around them (lstrip, rstrip)"
        )

    for token in added:
        token.update(lstrip=False, rstrip=False, normalized=False)
    to_bytes = symbols_to_bytes if is_byte_level(adoption.values) else _text_to_bytes
    clashing = [
        token["content"]
        for token in added
        if not token.get("special")
        and to_bytes(token["content"]) != token["content"].encode("utf-8", "replace")
    ]

    if clashing:
        names = ", ".join(map(repr, clashing[:5])) + (" ..." if len(clashing) > 5 else "")
        adoption.notes.append(
            f"added tokens that other programs decode as other bytes are text now: {names}"
        )
        adoption.values["added_tokens"] = [
            token for token in added if token["content"] not in clashing
        ]


def _text_to_bytes(token: str) -> bytes:
    found = BYTE_TOKEN.fullmatch(token)
    return bytes([int(found[1], 16)]) if found else token.encode("utf-8", "replace")


def _choose_end(adoption: Adoption, named_end: str | None) -> None:
    """Find the token that ends a text, or add one; it is special, so that in a text it is text."""
    added = adoption.values["added_tokens"]
    special = [token["content"] for token in added if token.get("special")]
    known = {token["content"] for token in added}
    likely = next((one for one in LIKELY_ENDS if one in special), END_OF_TEXT)
    end = named_end if named_end is not None and named_end in known else likely
    flags = {
        "special": True,
        "normalized": False,
        "lstrip": False,
        "rstrip": False,
        "single_word": False,
    }

    for token in added:
        if token["content"] == end:
            token.update(flags)

    if end not in known:
        vocab = adoption.values["model"]["vocab"]
        ids = [*vocab.values()] if isinstance(vocab, dict) else [len(vocab) - 1]
        last = max([*ids, *(token["id"] for token in added)])
        index = vocab.get(end, last + 1) if isinstance(vocab, dict) else last + 1
        added.append({"id": index, "content": end} | flags)

    adoption.end = end


def _has_gaps(values: Mapping[str, Any]) -> bool:
    vocab = values["model"]["vocab"]
    numbers = (
        dict(vocab)
        if isinstance(vocab, dict)
        else {entry[0]: index for index, entry in enumerate(vocab)}
    )
    for token in values["added_tokens"]:
        numbers.setdefault(token["content"], token["id"])
    return sorted(numbers.values()) != list(range(len(numbers)))


def _number_ids(adoption: Adoption) -> None:
    """Number the vocabulary and then the added tokens from 0 without gaps, as the tokenizers
    library will anyway.
    """
    vocab = adoption.values["model"]["vocab"]
    if isinstance(vocab, dict):
        order = sorted(vocab, key=vocab.__getitem__)
        numbers = {token: index for index, token in enumerate(order)}
        adoption.values["model"]["vocab"] = dict(numbers)
    else:
        numbers = {entry[0]: index for index, entry in enumerate(vocab)}
    added = sorted(adoption.values["added_tokens"], key=lambda token: token["id"])
    for token in added:
        token["id"] = numbers.setdefault(token["content"], len(numbers))
    adoption.values["added_tokens"] = sorted(added, key=lambda token: token["id"])


def _join(name: str, parts: list[JsonObject]) -> JsonObject | None:
    if len(parts) < 2:
        return parts[0] if parts else None
    return {"type": "Sequence", name: parts}
