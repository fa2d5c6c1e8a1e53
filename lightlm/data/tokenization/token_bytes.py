"""The bytes that a token stands for, decided by what kind of token it is and never by its
characters.

Added tokens are text as it stands. The others are symbols of bytes (GPT-2's way), or text in which
a symbol may stand for the space and `<0x0A>` for a byte (SentencePiece's way).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import Tokenizer as Engine

from lightlm.json_object import JsonObject

SPACE_SYMBOL = "\u2581"
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_symbols() -> dict[str, int]:
    """Return the character that stands for each byte in a byte-level vocabulary, as GPT-2's encoder
    has it.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + index): b for index, b in enumerate(others)}


BYTE_SYMBOLS = _byte_symbols()


class TokenBytes:
    """Gives the bytes of an id of one tokenizer; `values` are its tokenizer.json's."""

    def __init__(self, values: Mapping[str, Any], engine: Engine) -> None:
        self._engine = engine
        self._added = {
            index: token.content for index, token in engine.get_added_tokens_decoder().items()
        }
        self._is_byte_level = is_byte_level(values)
        self._space_symbol = None if self._is_byte_level else find_space_symbol(values)
        self._has_byte_tokens = bool(values["model"].get("byte_fallback"))

    def of(self, index: int) -> bytes:
        """Return the bytes of an id; of one that the vocabulary does not have, none."""
        added = self._added.get(index)
        if added is not None:
            return added.encode("utf-8")

        token = self._engine.id_to_token(index)
        if token is None:
            return b""
        if self._is_byte_level:
            return symbols_to_bytes(token)
        if self._has_byte_tokens and (byte := BYTE_TOKEN.fullmatch(token)):
            return bytes([int(byte[1], 16)])

        if self._space_symbol is not None:
            token = token.replace(self._space_symbol, " ")

        return token.encode("utf-8")


def symbols_to_bytes(token: str) -> bytes:
    """Return the bytes of a byte-level token; one with other characters was never made of bytes,
    and is text.
    """
    if all(symbol in BYTE_SYMBOLS for symbol in token):
        return bytes(BYTE_SYMBOLS[symbol] for symbol in token)
    return token.encode("utf-8")


def list_parts(part: Mapping[str, Any] | None) -> Iterator[JsonObject]:
    """Yield the steps of a normalizer, a pre_tokenizer or a decoder in order, sequences
    opened up.
    """
    if not part:
        return
    steps = part.get("normalizers") or part.get("pretokenizers") or part.get("decoders")
    if part.get("type") != "Sequence" or steps is None:
        yield dict(part)
        return
    for step in steps:
        yield from list_parts(step)


def is_byte_level(values: Mapping[str, Any]) -> bool:
    """Return whether text becomes symbols of bytes before it is cut into tokens."""
    parts = [*list_parts(values.get("normalizer")), *list_parts(values.get("pre_tokenizer"))]
    return any(part.get("type") == "ByteLevel" for part in parts)


def find_space_symbol(values: Mapping[str, Any]) -> str | None:
    """Return the symbol that a SentencePiece tokenizer puts in place of each space; None where
    spaces stay spaces.
    """
    for part in [*list_parts(values.get("normalizer")), *list_parts(values.get("pre_tokenizer"))]:
        if part.get("type") == "Metaspace":
            return part.get("replacement") or SPACE_SYMBOL
        if part.get("type") == "Replace" and (part.get("pattern") or {}).get("String") == " ":
            return part.get("content") or None
    return None
