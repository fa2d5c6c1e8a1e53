"""What a tokenizer.json must be before anything is built from it: its size, nesting, fields, ids
and patterns.

A file of a few kilobytes can ask for gigabytes (one id of four billion), for hours (a pattern that
backtracks) or for a stack (ten thousand brackets). What a look at the file can tell is refused
here.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from lightlm.errors import TokenizerError
from lightlm.json_object import JsonObject

MAX_BYTES = 1 << 26
"""Bytes of a file; Gemma 3's, with 262,144 entries, has 33 MB."""

MAX_IDS = 1 << 21
"""The largest vocabulary in use has a million entries."""

MAX_DEPTH = 16
MAX_PARTS = 512
MAX_TEXT = 8192
"""Characters of a text in normalizer, pre_tokenizer or decoder; the longest in use has 700."""

MAX_GROWTH = 64
"""How many times longer a text may become by the replacements of a normalizer."""

MAX_REPEATS = 10_000
"""Product of the upper bounds of a pattern's `{n,m}`: each multiplies the size of what it is
compiled to.
"""

MAX_TOKEN = 1024
"""Characters of an added token."""

REFERENCE = re.compile(r"\\(?:[1-9]|k<|g<|k'|g')|\(\?(?:R|[0-9&]|P[=>])|\(\?\(")
"""Back references, calls and conditions: no tokenizer has them, and they take time that grows
exponentially.
"""

INTERVAL = re.compile(r"\{(\d*)(?:,(\d*))?\}")
REMEDY = (
    "give a tokenizer.json as the tokenizers library writes it, or take --set "
    "tokenizer.source=train"
)

Id = Annotated[int, Field(ge=0, lt=MAX_IDS)]
Entry = Annotated[tuple[str, float], Field(strict=False)]
Merge = str | Annotated[list[str], Len(2, 2)]


class _Checked(BaseModel, strict=True, extra="ignore"):
    """A part of a tokenizer's file; what it has beyond these fields is left alone."""


class _AddedToken(_Checked):
    id: Id
    content: Annotated[str, Field(min_length=1, max_length=MAX_TOKEN)]
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    special: bool = False


class _BPE(_Checked):
    type: Literal["BPE"]
    vocab: Annotated[dict[str, Id], Field(min_length=1)]
    merges: list[Merge]
    dropout: Annotated[float, Field(ge=0, le=1)] | None = None
    unk_token: str | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None
    fuse_unk: bool | None = False
    byte_fallback: bool | None = False
    ignore_merges: bool | None = False


class _Words(_Checked):
    type: Literal["WordPiece", "WordLevel"]
    vocab: Annotated[dict[str, Id], Field(min_length=1)]
    unk_token: str
    continuing_subword_prefix: str | None = None
    max_input_chars_per_word: Annotated[int, Field(ge=1, le=1 << 20)] = 100


class _Unigram(_Checked):
    type: Literal["Unigram"]
    vocab: Annotated[list[Entry], Field(min_length=1, max_length=MAX_IDS)]
    unk_id: Id | None = None
    byte_fallback: bool | None = False


class _File(_Checked):
    model: Annotated[_BPE | _Words | _Unigram, Field(discriminator="type")]
    added_tokens: Annotated[list[_AddedToken], Field(max_length=1 << 16)] | None = None
    normalizer: JsonObject | None = None
    pre_tokenizer: JsonObject | None = None
    post_processor: JsonObject | None = None
    decoder: JsonObject | None = None
    truncation: JsonObject | None = None
    padding: JsonObject | None = None


FILE = TypeAdapter(_File)


def read_tokenizer_file(path: Path) -> bytes:
    """Return the content of a tokenizer.json, which may not be longer than such files are.

    Raises:
        TokenizerError: it is too long.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise TokenizerError(
            f"{path} is longer than {MAX_BYTES >> 20} MiB, which no tokenizer.json is; {REMEDY}"
        )
    return content


def parse_tokenizer(content: bytes, name: str) -> JsonObject:
    """Return the values of a tokenizer.json from which a tokenizer may be built. `name` stands in
    messages.

    Raises:
        TokenizerError: it is no JSON, a field has another type, an id is out of bounds, parts are
            nested too deep, or a pattern may run for hours.
    """
    try:
        values = from_json(content)
    except ValueError as error:
        raise TokenizerError(f"{name} is no JSON ({_shorten(error)}); {REMEDY}") from None

    if not isinstance(values, dict) or not isinstance(values.get("model"), dict):
        raise TokenizerError(f"{name} is no tokenizer.json: it has no `model`; {REMEDY}")

    values["model"].setdefault("type", "BPE" if "merges" in values["model"] else None)
    try:
        FILE.validate_python(values)
    except ValidationError as error:
        raise TokenizerError(f"{name} is no tokenizer.json: {_describe(error)}; {REMEDY}") from None

    _check_ids(values["model"]["vocab"], name)
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        _check_part(values.get(part), f"{name}: {part}")
    return values


def read_end_of_text(config: Any) -> str | None:
    """Return the token that a tokenizer_config.json names as end of text, as a string or as an
    object; else None.
    """
    token = config.get("eos_token") if isinstance(config, dict) else None
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) and token else None


def _check_ids(vocab: dict[str, int] | list[Any], name: str) -> None:
    if isinstance(vocab, dict) and len(set(vocab.values())) < len(vocab):
        seen: dict[int, str] = {}
        for token, index in vocab.items():
            if index in seen:
                raise TokenizerError(
                    f"{name} gives id {index} to {seen[index]!r} and to {token!r}; {REMEDY}"
                )
            seen[index] = token


def _check_part(part: JsonObject | None, name: str) -> None:
    growth = 1.0
    num_parts = 0
    for key, value, holder in _walk(part, name):
        num_parts += 1
        if num_parts > MAX_PARTS:
            raise TokenizerError(f"{name} has more than {MAX_PARTS} parts; {REMEDY}")
        if not isinstance(value, str) or key == "precompiled_charsmap":
            continue
        if len(value) > MAX_TEXT:
            raise TokenizerError(
                f"{name} holds a {key} of {len(value):,} characters, wanted {MAX_TEXT:,}; {REMEDY}"
            )
        if key == "Regex":
            _check_pattern(value, name)
        if key in ("content", "prepend") and holder.get("type") in ("Replace", "Prepend"):
            growth *= max(1, len(value))

    if growth > MAX_GROWTH:
        raise TokenizerError(
            f"{name} makes texts up to {growth:,.0f} times longer, wanted {MAX_GROWTH}; {REMEDY}"
        )


def _check_pattern(pattern: str, name: str) -> None:
    if found := REFERENCE.search(pattern):
        raise TokenizerError(
            f"{name} has the pattern {_shorten(pattern)} with {found[0]!r}, which may never end; "
            f"{REMEDY}"
        )

    repeats = 1
    for low, high in INTERVAL.findall(pattern):
        repeats *= max(1, int((high or low or "1")[:9]))

    if repeats > MAX_REPEATS:
        raise TokenizerError(
            f"{name} has the pattern {_shorten(pattern)}, which repeats {repeats:,} times; {REMEDY}"
        )


def _walk(
    part: Any, name: str, depth: int = 0, holder: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, Any, Any]]:
    """Yield (key, value, the object that holds it) of everything in a part of a tokenizer.json."""
    if depth > MAX_DEPTH:
        raise TokenizerError(f"{name} is nested deeper than {MAX_DEPTH}; {REMEDY}")
    if isinstance(part, dict):
        for key, value in part.items():
            yield str(key), value, part
            yield from _walk(value, name, depth + 1, part)
    elif isinstance(part, list):
        for value in part:
            yield "", value, holder
            yield from _walk(value, name, depth + 1, holder)


def _describe(error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    names = [
        str(part)
        for part in detail["loc"]
        if part not in ("BPE", "WordPiece", "WordLevel", "Unigram")
    ]
    where = ".".join(name if len(name) < 40 else name[:37] + "..." for name in names)
    got = _shorten(repr(detail.get("input")))
    return f"{where or 'it'} is {got}; {detail['msg'][0].lower()}{detail['msg'][1:]}"


def _shorten(text: object) -> str:
    line = " ".join(str(text).split())
    return line if len(line) < 80 else line[:77] + "..."
