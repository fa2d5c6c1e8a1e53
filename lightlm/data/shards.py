"""Token shards: a subset as flat files of token ids, memory-mapped, and where each held-out
document starts.

The stream begins with end-of-text; then come the documents, each followed by end-of-text.
"""

import itertools
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lightlm.data.blocks import Block, BlockTokens
from lightlm.data.corpus import Corpus, open_part
from lightlm.data.encoding import (
    Chunk,
    EnginesDiffer,
    cut_parts,
    encode_documents,
)
from lightlm.data.subset import OtherSubset, Split, TextSubset
from lightlm.data.token_array import TokenArray
from lightlm.data.tokenization.tokenizer import Tokenizer
from lightlm.errors import DatasetError
from lightlm.json_object import JsonObject
from lightlm.store.blocks import BlockCache
from lightlm.store.commit import open_commit
from lightlm.store.lock import ignore
from lightlm.store.remote import RemoteFolder
from lightlm.store.shared import Shareable
from lightlm.store.stage import Stage, fingerprint, open_stage

FORMAT = 2
KIND = "shards"
LATER_KIND = "shard-parts"
SHARD_TOKENS = 1 << 26
"""Tokens a file; 128 MB in uint16."""

SHARE_BITS = 20
"""Bits of a text's share of the sequences: the first 2**43 sequences are counted in 64 bits."""

SHORTEST_CONTEXT = 8
"""Tokens of the shortest context that params allow."""

FILES = re.compile(r"(train|validation)-\d{5}\.bin|validation\.(text|offsets)")

BLOCKS = "train.blocks"
REMOTE = "train.remote"
"""Files of a corpus' shards: the digests of the training tokens' blocks; here, where they are."""

SPLITS: tuple[Split, ...] = ("train", "validation")


class Part(NamedTuple):
    """A text among several whose ids stand one after the other: where its own begin, how many
    there are, and its share of what it and the texts before it give, in units of 2**-SHARE_BITS.
    """

    start: int
    num_tokens: int
    share: int


class MixedTokens(TokenArray):
    """The ids of several texts, one after the other; `parts` says which share each has of the
    sequences that are read.
    """

    parts: tuple[Part, ...]

    @classmethod
    def mix(cls, first: TokenArray, others: Sequence[tuple[TokenArray, float]]) -> "MixedTokens":
        """Return a text with others and their shares of the sequences; the first has the rest."""
        texts = [first, *(tokens for tokens, _ in others)]
        starts = list(itertools.accumulate(map(len, texts), initial=0))
        parts = []
        left = 1.0
        for index in range(len(others), 0, -1):
            share = others[index - 1][1]
            parts.append(
                Part(starts[index], len(texts[index]), round(share / left * (1 << SHARE_BITS)))
            )
            left -= share

        mixed = cls.join([piece for tokens in texts for piece in tokens.view(0, len(tokens))])
        mixed.parts = (Part(0, len(first), 1 << SHARE_BITS), *reversed(parts))
        return mixed


@dataclass(frozen=True)
class TokenShards:
    """The tokenized subset. Bytes are of raw text; `dtype` is little-endian uint16 or uint32."""

    folder: Path
    fingerprint: str
    reused: bool
    dtype: str
    vocab_size: int
    num_train_tokens: int
    num_validation_tokens: int
    num_train_bytes: int
    num_validation_bytes: int
    num_validation_documents: int
    validation_sha256: str
    later: tuple[str, ...] = ()
    """Fingerprints of the later parts, which are written while training reads these shards. The
    number of training tokens is an estimate then.
    """
    text: TextSubset | None = None
    """The text, where these shards were just made or found."""
    others: tuple["OtherShards", ...] = ()

    @property
    def identity(self) -> str:
        """Return the fingerprints of these shards and of those of the other texts."""
        return "+".join([self.fingerprint, *(one.shards.fingerprint for one in self.others)])

    @property
    def is_remote(self) -> bool:
        """Return whether the training tokens are elsewhere, and read as they are needed."""
        return (self.folder / REMOTE).exists()

    def tokens(self, split: Split, cache_bytes: int = 1 << 30) -> TokenArray:
        """Return the ids of a split; of those that lie elsewhere, so many bytes are kept here."""
        if split == "train" and self.is_remote:
            return self._open_blocks(cache_bytes)
        return TokenArray(sorted(self.folder.glob(f"{split}-*.bin")), self.dtype)

    def _open_blocks(self, cache_bytes: int) -> BlockTokens:
        listed = json.loads((self.folder / BLOCKS).read_bytes())
        size = listed["block_bytes"]
        blocks = [
            Block(file["sha256"], start, min(size, file["bytes"] - start), digest)
            for file in listed["files"]
            for start, digest in zip(range(0, file["bytes"], size), file["blocks"], strict=True)
        ]
        url = json.loads((self.folder / REMOTE).read_bytes())["url"]
        cache = BlockCache(self.folder.parents[2] / "cache" / "blocks", cache_bytes)
        return BlockTokens(blocks, self.dtype, RemoteFolder(url), cache)

    def validation_offsets(self) -> np.ndarray:
        """Return (documents + 1, 2) uint64: each held-out document's first token and first byte,
        and the ends.
        """
        return np.fromfile(self.folder / "validation.offsets", dtype="<u8").reshape(-1, 2)

    def validation_text(self, num_documents: int | None = None) -> bytes:
        """Return the raw held-out text, of the first `num_documents` documents or of all."""
        text = (self.folder / "validation.text").read_bytes()
        if num_documents is None:
            return text
        return text[: int(self.validation_offsets()[num_documents, 1])]


class OtherShards(NamedTuple):
    """A further text, and its shards under the tokenizer of the first."""

    text: OtherSubset
    shards: TokenShards


def tokenize_subset(
    home: Path,
    subset: TextSubset,
    tokenizer: Tokenizer,
    *,
    is_whole: bool = False,
    report: Callable[[str], None] = ignore,
) -> TokenShards:
    """Return the shards of subset and tokenizer, made or found in the store; a set for each of the
    other texts, too. Of a large text alone they are the first part, unless it `is_whole`.

    Raises:
        DatasetError: they hold no sequence.
    """
    if subset.corpus is not None:
        return _describe(_open_corpus_shards(home, subset.corpus, report))

    parts = [] if is_whole or subset.others else cut_parts(subset)
    key = name_shards(subset, tokenizer)
    if len(parts) > 1:
        key |= {"parts": len(parts)}
    # Two bytes per token of two bytes or more, and the held-out text once more.
    num_bytes = subset.num_bytes + 2 * subset.num_validation_bytes
    stage = open_stage(
        home,
        KIND,
        key,
        lambda folder: encode_anyway(
            lambda is_fast: _write(folder, subset, tokenizer, parts, is_fast=is_fast), report
        ),
        num_bytes,
        shareable=Shareable(FILES, TokenShards),
        report=report,
    )
    shards = replace(_describe(stage), text=subset)
    if shards.num_train_tokens <= SHORTEST_CONTEXT:
        raise DatasetError(
            f"{subset.source} has {shards.num_train_tokens:,} tokens to train on, the shortest "
            f"sequence needs {SHORTEST_CONTEXT + 1}; give more text"
        )

    others = (
        OtherShards(one, tokenize_subset(home, one.subset, tokenizer, is_whole=True, report=report))
        for one in subset.others
    )
    return replace(shards, others=tuple(others))


def _open_corpus_shards(home: Path, corpus: Corpus, report: Callable[[str], None]) -> Stage:
    def finish(folder: RemoteFolder, scratch: Path) -> None:
        (scratch / REMOTE).write_text(json.dumps({"url": folder.url}), encoding="utf-8")

    shareable = Shareable(re.compile(f"{FILES.pattern}|{re.escape(BLOCKS)}"), TokenShards)
    return open_part(
        home, corpus, KIND, shareable, finish=finish, left_there="train-", report=report
    )


def open_shards(folder: Path) -> TokenShards:
    """Return the shards in a committed folder, their digests verified.

    Raises:
        CorruptError: a file does not have the digest of the manifest.
    """
    commit = open_commit(folder, KIND)
    return _describe(Stage(folder, folder.name, commit.meta, reused=True))


def name_shards(subset: TextSubset, tokenizer: Tokenizer) -> JsonObject:
    """Return the key of a text's shards in the store."""
    return {"format": FORMAT, "subset": subset.fingerprint, "tokenizer": tokenizer.fingerprint}


def name_later(subset: TextSubset, tokenizer: Tokenizer, part: int) -> JsonObject:
    """Return the key of a later part of a text's shards in the store."""
    return name_shards(subset, tokenizer) | {"part": part}


def _describe(stage: Stage) -> TokenShards:
    meta: JsonObject = stage.meta | {"later": tuple(stage.meta.get("later", ()))}
    return TokenShards(
        folder=stage.folder, fingerprint=stage.fingerprint, reused=stage.reused, **meta
    )


def encode_anyway(write: Callable[[bool], JsonObject], report: Callable[[str], None]) -> JsonObject:
    """Return what `write` returns with the faster engine, or, where that gives other ids, without
    it.
    """
    try:
        return write(True)
    except EnginesDiffer:
        report(
            "the faster tokenizer engine gave other ids than the tokenizers library; encoding "
            "anew without it"
        )
        return write(False)


def _write(
    folder: Path,
    subset: TextSubset,
    tokenizer: Tokenizer,
    parts: Sequence[Sequence[Chunk]],
    *,
    is_fast: bool,
) -> JsonObject:
    first = parts[0] if len(parts) > 1 else None
    counts = {
        f"num_{split}_tokens": write_split(
            folder,
            subset,
            split,
            tokenizer,
            is_fast=is_fast,
            chosen=first if split == "train" else None,
        )
        for split in SPLITS
    }
    facts = counts | describe_ids(subset, tokenizer)
    if first is None:
        return facts

    read = sum(int(chunk.lengths.sum()) for chunk in first)
    return facts | {
        "num_train_tokens": round(counts["num_train_tokens"] * subset.num_bytes / read),
        "later": [
            fingerprint(LATER_KIND, name_later(subset, tokenizer, part))
            for part in range(1, len(parts))
        ],
    }


def choose_dtype(tokenizer: Tokenizer) -> str:
    """Return the narrowest type that holds a tokenizer's ids."""
    return "<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4"


def write_split(
    folder: Path,
    subset: TextSubset,
    split: Split,
    tokenizer: Tokenizer,
    *,
    is_fast: bool,
    chosen: Sequence[Chunk] | None = None,
) -> int:
    """Write the ids of a split, or of `chosen` pieces of it, and with the held-out ones their text;
    return how many there are.

    Raises:
        EnginesDiffer: the faster engine is not this tokenizer's; write it anew without.
    """
    dtype = choose_dtype(tokenizer)
    with ShardWriter(folder, split) as writer:
        writer.add(np.array([tokenizer.end_of_text_id], dtype=dtype))
        ends = [np.ones(1, dtype="<u8")]
        for encoded in encode_documents(
            subset, split, tokenizer, dtype, is_fast=is_fast, chosen=chosen
        ):
            if split == "validation":
                ends.append((writer.num_tokens + np.cumsum(encoded.counts)).astype("<u8"))
            writer.add(np.frombuffer(encoded.ids, dtype=dtype))

    if split == "validation":
        lengths = [np.zeros(1, dtype="<u8"), *subset.read_lengths(split)]
        starts = np.cumsum(np.concatenate(lengths), dtype="<u8")
        np.stack([np.concatenate(ends), starts], axis=1).astype("<u8").tofile(
            folder / "validation.offsets"
        )
        shutil.copyfile(subset.text_path("validation"), folder / "validation.text")
    return writer.num_tokens


def describe_ids(subset: TextSubset, tokenizer: Tokenizer) -> JsonObject:
    """Return what shards say of themselves, but for the numbers of tokens."""
    return {
        "dtype": choose_dtype(tokenizer),
        "vocab_size": tokenizer.vocab_size,
        "num_train_bytes": subset.num_bytes,
        "num_validation_bytes": subset.num_validation_bytes,
        "num_validation_documents": subset.num_validation_documents,
        "validation_sha256": subset.validation_sha256,
    }


class ShardWriter:
    """Appends ids to files of at most SHARD_TOKENS each."""

    def __init__(self, folder: Path, split: Split) -> None:
        self.num_tokens = 0
        self._folder = folder
        self._split = split
        self._file = self._open_next()

    def add(self, values: np.ndarray) -> None:
        """Append ids, of the dtype already."""
        while len(values):
            room = SHARD_TOKENS - self.num_tokens % SHARD_TOKENS
            self._file.write(values[:room].data)
            self.num_tokens += len(values[:room])
            values = values[room:]
            if self.num_tokens % SHARD_TOKENS == 0:
                self._file.close()
                self._file = self._open_next()

    def _open_next(self) -> Any:
        return (self._folder / f"{self._split}-{self.num_tokens // SHARD_TOKENS:05d}.bin").open(
            "wb"
        )

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
