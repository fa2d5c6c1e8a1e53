"""A tokenizer in llama.cpp's terms: the model and splitting rule there that cut text as ours does,
if any.

The rule is found by the pieces that it makes of probes. A copy of llama.cpp's tokenization, built
from a GGUF file's own fields, compares tokens where llama.cpp is not installed.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from lightlm.errors import ModelVersionError

SPACE_SYMBOL = "\u2581"
NORMAL = 1
UNKNOWN = 2
CONTROL = 3
USER_DEFINED = 4
UNUSED = 5
BYTE = 6
"""llama.cpp's types of tokens."""

GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_GPT_4 = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?%s+|\p{N}%s| ?[^\s%s\p{N}]+[\r\n]*"  # noqa: E501
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Rule:
    """A splitting rule of llama.cpp by its name there: patterns that cut one after the other."""

    name: str
    patterns: tuple[str, ...]
    ignores_merges: bool = False
    """Whether a word that is an entry is that entry, however it would be merged."""

    def build(self) -> Any:
        """Return the rule as the tokenizers library has it."""
        splits = [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in self.patterns
        ]
        return pre_tokenizers.Sequence(
            [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )


RULES = (
    Rule("gpt-2", (GPT_2,)),
    Rule("smollm", (r"\p{N}", GPT_2)),
    Rule("llama-bpe", (_GPT_4 % (r"\p{L}", "{1,3}", r"\p{L}"),), ignores_merges=True),
    Rule("smaug-bpe", (_GPT_4 % (r"\p{L}", "{1,3}", r"\p{L}"),)),
    Rule("qwen2", (_GPT_4 % (r"\p{L}", "", r"\p{L}"),)),
    Rule("qwen35", (_GPT_4 % (r"[\p{L}\p{M}]", "", r"\p{L}\p{M}"),)),
)
"""Source: llama.cpp, src/llama-vocab.cpp and unicode.cpp; each was compared with llama.cpp itself
on code points of every script and on 60,000 random texts: equal but for characters that are newer
than its tables (Unicode 15).
"""

PROBED = (
    "a",
    "Z",
    "\u00e9",
    "\u4e2d",
    "1",
    "\u0663",
    ".",
    "'",
    "s",
    " ",
    "\n",
    "\r",
    "\t",
    "\u00a0",
    "\u0301",
    "\U0001f642",
)
"""One character of each kind that a splitting rule distinguishes; three in a row make a probe."""

PROBES = (
    *("".join(row) for length in (1, 2, 3) for row in itertools.product(PROBED, repeat=length)),
    "I'LL we'd IT'S don't 're 'Ve '\u017f 12345678901 1234 \u00b2\u00bd x  \n\n  y \n z\r\n\r\n   ",
)

REMEDY = (
    "export it with --to hf or --to onnx, or train with --set tokenizer.source=train, whose "
    "rule llama.cpp has"
)


@dataclass(frozen=True)
class LlamaVocabulary:
    """The fields of a GGUF file that describe its tokenizer, by their meaning."""

    model: str
    rule: str
    tokens: list[str]
    types: list[int]
    merges: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def added_tokens(self) -> list[str]:
        """Return the tokens that are cut out of a text before it is split, but special ones."""
        return [
            token
            for token, kind in zip(self.tokens, self.types, strict=True)
            if kind == USER_DEFINED
        ]


def describe_vocabulary(tokenizer_json: str, size: int) -> LlamaVocabulary:
    """Return a tokenizer.json as llama.cpp's fields; ids from its last to `size` are unused.

    Raises:
        ModelVersionError: no model or no splitting rule of llama.cpp cuts text as this tokenizer
            does.
    """
    values = json.loads(tokenizer_json)
    model = values["model"]
    added = values.get("added_tokens") or []

    if model["type"] != "BPE":
        raise ModelVersionError(
            f"llama.cpp has no {model['type']} tokenizer as this model's is; {REMEDY}"
        )

    vocab: dict[str, int] = model["vocab"]
    ids = {index: token for token, index in vocab.items()} | {
        token["id"]: token["content"] for token in added
    }
    kinds = {token["id"]: CONTROL if token.get("special") else USER_DEFINED for token in added}
    types = [kinds.get(index, NORMAL if index in ids else UNUSED) for index in range(size)]
    engine = Tokenizer.from_str(tokenizer_json)
    pairs = [
        tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge)
        for merge in model["merges"]
    ]

    if any(part.get("type") == "ByteLevel" for part in _list_parts(values.get("pre_tokenizer"))):
        rule = choose_rule(engine, is_by_entry=bool(model.get("ignore_merges")))
        tokens = [ids.get(index, f"[PAD{index}]") for index in range(size)]
        return LlamaVocabulary(
            "gpt2", rule.name, tokens, types, merges=[" ".join(pair) for pair in pairs]
        )

    if not model.get("byte_fallback") or values.get("normalizer"):
        raise ModelVersionError(
            f"llama.cpp cannot keep every text of this model's tokenizer; {REMEDY}"
        )

    return _describe_sentencepiece(vocab, pairs, ids, types, model.get("unk_token"))


def choose_rule(engine: Tokenizer, *, is_by_entry: bool) -> Rule:
    """Return the rule of llama.cpp that cuts every probe as the tokenizer does.

    Raises:
        ModelVersionError: there is none.
    """
    splitter = engine.pre_tokenizer
    assert splitter is not None
    normalize = engine.normalizer.normalize_str if engine.normalizer is not None else str
    wanted = [
        [piece for piece, _ in splitter.pre_tokenize_str(normalize(probe))] for probe in PROBES
    ]

    found = []
    for rule in RULES:
        cut = rule.build().pre_tokenize_str
        if all(
            [piece for piece, _ in cut(probe)] == pieces
            for probe, pieces in zip(PROBES, wanted, strict=True)
        ):
            found.append(rule)

    if not found:
        raise ModelVersionError(
            f"no splitting rule of llama.cpp cuts text as this model's tokenizer does; {REMEDY}"
        )

    return next((rule for rule in found if rule.ignores_merges == is_by_entry), found[0])


def _describe_sentencepiece(
    vocab: Mapping[str, int],
    pairs: Sequence[tuple[str, ...]],
    ids: Mapping[int, str],
    types: list[int],
    unknown: str | None,
) -> LlamaVocabulary:
    """Return llama.cpp's SentencePiece model: entries with scores, which join any two that are an
    entry together.

    Raises:
        ModelVersionError: the merges are others than the entries alone would give.
    """
    if set(pairs) != set(cut_entries(vocab)):
        raise ModelVersionError(
            "llama.cpp joins entries of a SentencePiece tokenizer in ways that this model's does "
            f"not; {REMEDY}"
        )

    scores = [0.0] * len(types)
    for rank, pair in reversed([*enumerate(pairs)]):
        scores[vocab["".join(pair)]] = -float(rank + 1)
    for token, index in vocab.items():
        if types[index] == NORMAL and len(token) == 6 and token.startswith("<0x"):
            types[index] = BYTE

    if unknown is not None and unknown in vocab:
        types[vocab[unknown]] = UNKNOWN

    tokens = []
    for index, kind in enumerate(types):
        token = ids.get(index, f"[PAD{index}]")
        tokens.append(token.replace(" ", SPACE_SYMBOL) if kind == NORMAL else token)

    return LlamaVocabulary("llama", "default", tokens, types, scores=scores)


def cut_entries(vocab: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Yield each way to cut an entry into two entries."""
    for token in vocab:
        for middle in range(1, len(token)):
            if token[:middle] in vocab and token[middle:] in vocab:
                yield token[:middle], token[middle:]


class LlamaTokenizer:
    """Text to ids as llama.cpp computes them from the fields of a GGUF file, special tokens in text
    left as text.
    """

    def __init__(self, vocabulary: LlamaVocabulary) -> None:
        ids = {token: index for index, token in enumerate(vocabulary.tokens)}
        kinds = vocabulary.types
        self._added = sorted(
            (t for t, i in ids.items() if kinds[i] == USER_DEFINED), key=lambda t: -len(t.encode())
        )
        self._ids = ids
        vocab: dict[Any, Any] = dict(ids)

        if vocabulary.model == "gpt2":
            rule = next(rule for rule in RULES if rule.name == vocabulary.rule)
            merges: list[Any] = [tuple(merge.split(" ")) for merge in vocabulary.merges]
            self._engine = Tokenizer(models.BPE(vocab, merges, ignore_merges=rule.ignores_merges))
            self._engine.pre_tokenizer = rule.build()
        else:
            entries = {token: index for token, index in ids.items() if kinds[index] == NORMAL}
            scores = vocabulary.scores
            cuts = sorted(cut_entries(entries), key=lambda pair: -scores[entries["".join(pair)]])
            self._engine = Tokenizer(models.BPE(vocab, cuts, byte_fallback=True))
            self._engine.normalizer = normalizers.Replace(" ", SPACE_SYMBOL)  # pyright: ignore[reportAttributeAccessIssue]

    def encode(self, text: str) -> list[int]:
        """Return the ids: added tokens are cut out first, the longest first; what is between is
        split and merged.
        """
        fragments: list[str | int] = [text]
        for token in self._added:
            fragments = [piece for fragment in fragments for piece in self._cut(fragment, token)]
        ids: list[int] = []
        for fragment in fragments:
            if isinstance(fragment, int):
                ids.append(fragment)
            else:
                ids += self._engine.encode(fragment, add_special_tokens=False).ids
        return ids

    def _cut(self, fragment: str | int, token: str) -> Iterator[str | int]:
        if isinstance(fragment, int):
            yield fragment
            return
        for number, piece in enumerate(fragment.split(token)):
            if number:
                yield self._ids[token]
            if piece:
                yield piece


def overlap(tokens: Sequence[str]) -> list[str]:
    """Return texts in which one token begins inside of another: which is cut out first decides how
    they are read.
    """
    texts = []
    for first, second in itertools.product(tokens[:200], repeat=2):
        for length in range(1, min(len(first), len(second))):
            if first.endswith(second[:length]):
                texts.append(first + second[length:])
    return texts


def _list_parts(part: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    if part and part.get("type") == "Sequence":
        for step in part.get("pretokenizers") or ():
            yield from _list_parts(step)
    elif part:
        yield part
