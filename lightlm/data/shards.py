"""Token shards: a subset as flat files of token ids, memory-mapped, and where each held-out
document starts.

The stream begins with end-of-text; then come the documents, each followed by end-of-text.
"""

import bisect
import itertools
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from lightlm.data.encoding import EnginesDiffer, encode_documents
from lightlm.data.subset import OtherSubset, Split, TextSubset
from lightlm.data.tokenization.tokenizer import Tokenizer
from lightlm.errors import DatasetError
from lightlm.json_object import JsonObject
from lightlm.store.commit import open_commit
from lightlm.store.lock import ignore
from lightlm.store.shared import Shareable
from lightlm.store.stage import Stage, open_stage

FORMAT = 2
KIND = "shards"
SHARD_TOKENS = 1 << 26
"""Tokens a file; 128 MB in uint16."""

SHARE_BITS = 20
"""Bits of a text's share of the sequences: the first 2**43 sequences are counted in 64 bits."""

SHORTEST_CONTEXT = 8
"""Tokens of the shortest context that params allow."""

SPLITS: tuple[Split, ...] = ("train", "validation")


class TokenArray:
    """A split's token ids, one after the other over its files; slices are copies, read from the
    mapped files.
    """

    def __init__(self, files: list[Path], dtype: str) -> None:
        # Plain arrays over the mapping: slicing a numpy.memmap itself takes ten times as long.
        self._hold(
            [np.asarray(np.memmap(path, dtype, "r")) for path in files if path.stat().st_size]
        )

    @classmethod
    def join(cls, arrays: Sequence[np.ndarray]) -> Self:
        """Return the ids of arrays in memory, one after the other."""
        joined = cls([], "<u2")
        joined._hold(arrays)
        return joined

    def _hold(self, arrays: Sequence[np.ndarray]) -> None:
        self._maps = list(arrays)
        self._starts = [0, *itertools.accumulate(map(len, arrays))]

    def __len__(self) -> int:
        """Return the number of tokens."""
        return self._starts[-1]

    def __getitem__(self, span: slice) -> np.ndarray:
        """Return the ids from span.start to span.stop."""
        start, stop, step = span.indices(len(self))
        if step != 1:
            raise ValueError(f"wanted a contiguous slice, got step {step}")

        pieces = []
        index = bisect.bisect_right(self._starts, start) - 1
        while start < stop:
            end = min(stop, self._starts[index + 1])
            offset = self._starts[index]
            pieces.append(self._maps[index][start - offset : end - offset])
            start = end
            index = index + 1

        return (
            np.array(pieces[0])
            if len(pieces) == 1
            else np.concatenate([*pieces, np.empty(0, np.uint16)])
        )

    def without(self, spans: Sequence[slice]) -> "TokenArray":
        """Return the ids outside of `spans`, ascending and apart; views of the same files."""
        ends = [*(span.start for span in spans), len(self)]
        starts = [0, *(span.stop for span in spans)]
        return TokenArray.join(
            [
                piece
                for start, end in zip(starts, ends, strict=True)
                for piece in self.view(start, end)
            ]
        )

    def view(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Yield the ids from `start` to `stop`, a view of each file that has some."""
        for first, held in zip(self._starts, self._maps, strict=False):
            piece = held[max(0, start - first) : max(0, stop - first)]
            if len(piece):
                yield piece

    def take_windows(self, starts: np.ndarray, size: int) -> np.ndarray:
        """Return the `size` ids from each of `starts` on, (windows, size), in the dtype of the
        files.

        One copy by numpy for all windows of a file: 9 GB/s, window by window 4 GB/s (2 KB each, one
        core).
        """
        files = np.searchsorted(self._starts, starts, side="right") - 1
        used = set(files.tolist())
        if len(used) == 1 and (places := starts - self._starts[min(used)]).max() + size <= len(
            self._maps[min(used)]
        ):
            return self._view_windows(min(used), size)[places]

        windows = np.empty((len(starts), size), dtype=self._maps[0].dtype)
        is_inside = starts + size <= np.asarray(self._starts)[files + 1]
        for file in used:
            rows = np.flatnonzero((files == file) & is_inside)
            if rows.size:
                windows[rows] = self._view_windows(file, size)[starts[rows] - self._starts[file]]

        for row in np.flatnonzero(~is_inside).tolist():
            windows[row] = self[int(starts[row]) : int(starts[row]) + size]
        return windows

    def _view_windows(self, file: int, size: int) -> np.ndarray:
        """Return every window of a file, each one id after the one before it, without a copy.

        As numpy's sliding_window_view, which takes 10 us.
        """
        ids = self._maps[file]
        return np.ndarray((len(ids) - size + 1, size), ids.dtype, ids, strides=2 * ids.strides)


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
    others: tuple["OtherShards", ...] = ()

    @property
    def identity(self) -> str:
        """Return the fingerprints of these shards and of those of the other texts."""
        return "+".join([self.fingerprint, *(one.shards.fingerprint for one in self.others)])

    def tokens(self, split: Split) -> TokenArray:
        """Return the ids of a split."""
        return TokenArray(sorted(self.folder.glob(f"{split}-*.bin")), self.dtype)

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
    home: Path, subset: TextSubset, tokenizer: Tokenizer, *, report: Callable[[str], None] = ignore
) -> TokenShards:
    """Return the shards of subset and tokenizer, made or found in the store; a set for each of the
    other texts, too.

    Raises:
        DatasetError: they hold no sequence.
    """
    key = {"format": FORMAT, "subset": subset.fingerprint, "tokenizer": tokenizer.fingerprint}
    # Two bytes a token of two bytes or more, and the held-out text once more.
    num_bytes = subset.num_bytes + 2 * subset.num_validation_bytes
    stage = open_stage(
        home,
        KIND,
        key,
        lambda folder: _build(folder, subset, tokenizer, report),
        num_bytes,
        shareable=Shareable(
            re.compile(r"(train|validation)-\d{5}\.bin|validation\.(text|offsets)"), TokenShards
        ),
        report=report,
    )
    shards = _describe(stage)
    if shards.num_train_tokens <= SHORTEST_CONTEXT:
        raise DatasetError(
            f"{subset.source} has {shards.num_train_tokens:,} tokens to train on, the shortest "
            f"sequence needs {SHORTEST_CONTEXT + 1}; give more text"
        )

    others = (
        OtherShards(one, tokenize_subset(home, one.subset, tokenizer, report=report))
        for one in subset.others
    )
    return replace(shards, others=tuple(others))


def open_shards(folder: Path) -> TokenShards:
    """Return the shards in a committed folder, their digests verified.

    Raises:
        CorruptError: a file does not have the digest of the manifest.
    """
    commit = open_commit(folder, KIND)
    return _describe(Stage(folder, folder.name, commit.meta, reused=True))


def _describe(stage: Stage) -> TokenShards:
    return TokenShards(
        folder=stage.folder, fingerprint=stage.fingerprint, reused=stage.reused, **stage.meta
    )


def _build(
    folder: Path, subset: TextSubset, tokenizer: Tokenizer, report: Callable[[str], None]
) -> JsonObject:
    try:
        return _write(folder, subset, tokenizer, is_fast=True)
    except EnginesDiffer:
        report(
            "the faster tokenizer engine gave other ids than the tokenizers library; encoding "
            "anew without it"
        )
        return _write(folder, subset, tokenizer, is_fast=False)


def _write(folder: Path, subset: TextSubset, tokenizer: Tokenizer, *, is_fast: bool) -> JsonObject:
    dtype = "<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4"
    counts = {}
    for split in SPLITS:
        with ShardWriter(folder, split) as writer:
            writer.add(np.array([tokenizer.end_of_text_id], dtype=dtype))
            ends = [np.ones(1, dtype="<u8")]
            for encoded in encode_documents(subset, split, tokenizer, dtype, is_fast=is_fast):
                if split == "validation":
                    ends.append((writer.num_tokens + np.cumsum(encoded.counts)).astype("<u8"))
                writer.add(np.frombuffer(encoded.ids, dtype=dtype))
            counts[f"num_{split}_tokens"] = writer.num_tokens
        if split == "validation":
            lengths = [np.zeros(1, dtype="<u8"), *subset.read_lengths(split)]
            starts = np.cumsum(np.concatenate(lengths), dtype="<u8")
            np.stack([np.concatenate(ends), starts], axis=1).astype("<u8").tofile(
                folder / "validation.offsets"
            )

    shutil.copyfile(subset.text_path("validation"), folder / "validation.text")
    return counts | {
        "dtype": dtype,
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
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the last file."""
        self._file.close()
