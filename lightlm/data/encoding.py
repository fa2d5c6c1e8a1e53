"""Encoding of documents to token ids, by one process per core and the fastest engine.

The ids are always those of the tokenizers library: both engines encode samples of the text, and one
difference ends the use of the faster one.
"""

import hashlib
import json
import re
import sys
import tempfile
from array import array
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from lightlm.data.permutation import permute_range
from lightlm.data.processes import Arrays, Job, Work, answer_in_order, serve
from lightlm.data.subset import Split, TextSubset
from lightlm.data.tokenization.hard_texts import HARD_TEXTS
from lightlm.data.tokenization.tokenizer import Tokenizer, load_tokenizer
from lightlm.data.tokenization.trial import library_errors
from lightlm.errors import TokenizerError
from lightlm.store.commit import write_file
from lightlm.system import count_cores

CHUNK_BYTES = 1 << 22
"""Bytes of text that a process takes at a time; they give about 2 MB of ids."""

FIRST_BYTES = 1 << 25
"""Bytes of text that are tokenized before training begins: about twice the tokens that are counted
(n-grams). A text is cut into parts from twice as many on.
"""

LEAST_BYTES_PER_PROCESS = 6 << 20
"""A process costs 0.3 s to start; below this it encodes nothing that pays for it (about 12 MB a CPU
second).
"""

MAX_PROCESSES = 32
"""Each takes about 100 MB; the parent's writing keeps up with about this many."""

CHECK_EVERY_BYTES = 1 << 18
CHECK_BYTES = 2048
"""One part in 128 of the text goes through both engines: about 5 % of the time; tokenizers is 5 to
8 times slower.
"""

ODD_BLANK = re.compile("[\x0b\x0c\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
"""White space other than blanks, tabs and line ends. Before a letter it belongs to the word, and
tokie makes a token of its own of it.
"""

TYPECODES = {"<u2": "H", "<u4": "I"}

Encode = Callable[[str], Sequence[int]]


class EnginesDiffer(Exception):
    """The faster engine gave other ids than tokenizers."""


class Chunk(NamedTuple):
    """Documents, or passages of them, that lie one after the other in a subset's text.

    Where they start; their lengths in bytes, (n,) int64; whether a document ends with each, (n,)
    bool.
    """

    offset: int
    lengths: np.ndarray
    ends: np.ndarray


class EncodedChunk(NamedTuple):
    """Ids of a chunk's documents, one after the other, as bytes of the shards' dtype; and each
    document's count.
    """

    counts: np.ndarray
    ids: bytes


class Encoder:
    """Encodes documents with the fastest engine that gives this tokenizer's ids;
    `engine` names it.
    """

    def __init__(self, tokenizer: Tokenizer, *, is_fast: bool = True) -> None:
        self.tokenizer = tokenizer
        self._encode: Encode = tokenizer.encode
        self._since_check = CHECK_EVERY_BYTES
        self.engine = "tokenizers"
        found = open_fast_engine(tokenizer) if is_fast else None
        if found is not None:
            self._encode = found
            self.engine = "tokie"

    def encode(self, text: BinaryIO, chunk: Chunk, dtype: str, end_id: int) -> EncodedChunk:
        """Return the ids of a chunk of `text`, those of each document's end followed by `end_id`.

        Raises:
            EnginesDiffer: a sample has other ids in the faster engine.
        """
        text.seek(chunk.offset)
        ids = array(TYPECODES[dtype])
        counts = np.empty(len(chunk.lengths), dtype="<i8")

        for index, (length, is_end) in enumerate(
            zip(chunk.lengths.tolist(), chunk.ends.tolist(), strict=True)
        ):
            before = len(ids)
            document = text.read(length).decode("utf-8")
            ids.extend(self._choose_engine(document, length)(document))
            if is_end:
                ids.append(end_id)
            counts[index] = len(ids) - before

        if sys.byteorder == "big":
            ids.byteswap()

        return EncodedChunk(counts, ids.tobytes())

    def _choose_engine(self, document: str, length: int) -> Encode:
        if self.engine == "tokenizers" or has_odd_blank(document):
            return self.tokenizer.encode
        self._check(document, length)
        return self._encode

    def _check(self, document: str, length: int) -> None:
        self._since_check += length
        if self._since_check < CHECK_EVERY_BYTES:
            return
        self._since_check = 0
        sample = document[:CHECK_BYTES]
        if list(self._encode(sample)) != self.tokenizer.encode(sample):
            raise EnginesDiffer(sample)


def has_odd_blank(document: str) -> bool:
    """Return whether a document has white space that tokie cuts by a rule of its own."""
    if document.isascii():
        return "\x0b" in document or "\x0c" in document
    return ODD_BLANK.search(document) is not None


def open_fast_engine(tokenizer: Tokenizer) -> Encode | None:
    """Return tokie's encoding for a tokenizer; None where it is not installed, or does not give the
    same ids.
    """
    try:
        import tokie
    except ImportError:
        return None

    values = json.loads(tokenizer.engine.to_str())
    if any(not token["special"] for token in values.get("added_tokens") or []):
        # cut out of the text before anything else; tokie would do so by rules of its own
        return None

    # Special tokens that stand in text are text; tokie would split there, so it does not
    # get them.
    values["added_tokens"] = []
    end = tokenizer.engine.id_to_token(tokenizer.end_of_text_id)
    trials = (*HARD_TEXTS, f"a {end}b\n\n  c")

    try:
        # for a layout that it does not know, or a pattern that it has no engine for
        with library_errors("tokie"), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tokenizer.json"  # it reads nothing but files
            write_file(path, json.dumps(values).encode())
            engine = tokie.Tokenizer.from_json(str(path))
            is_equal = all(
                engine.encode(trial, False).ids == tokenizer.encode(trial) for trial in trials
            )
    except TokenizerError:
        return None

    def encode(text: str) -> list[int]:
        return engine.encode(text, False).ids

    return encode if is_equal else None


def encode_documents(
    subset: TextSubset,
    split: Split,
    tokenizer: Tokenizer,
    dtype: str,
    *,
    is_fast: bool = True,
    num_processes: int | None = None,
    chosen: Sequence[Chunk] | None = None,
) -> Generator[EncodedChunk, None, None]:
    """Yield the ids of a split's documents in order, each document ended by end-of-text; or of
    `chosen` chunks of them, in their order.

    At most a few chunks a process are in memory at a time.

    Raises:
        EnginesDiffer: the faster engine is not this tokenizer's; begin again with `is_fast=False`.
    """
    path = subset.text_path(split)
    end_id = tokenizer.end_of_text_id
    num_bytes = path.stat().st_size
    chunks = cut_chunks(subset.read_lengths(split), subset.read_ends(split))
    if chosen is not None:
        num_bytes = sum(int(chunk.lengths.sum()) for chunk in chosen)
        chunks = iter(chosen)
    if num_processes is None:
        num_processes = min(count_cores(), MAX_PROCESSES, num_bytes // LEAST_BYTES_PER_PROCESS)

    if num_processes < 2:
        encoder = Encoder(tokenizer, is_fast=is_fast)
        with path.open("rb") as text:
            for chunk in chunks:
                yield encoder.encode(text, chunk, dtype, end_id)
        return

    for counts, ids in answer_in_order(
        describe_job(tokenizer, path, dtype, end_id, is_fast=is_fast),
        ([np.array([chunk.offset]), chunk.lengths, chunk.ends] for chunk in chunks),
        num_processes,
    ):
        yield EncodedChunk(counts, ids.tobytes())


def describe_job(
    tokenizer: Tokenizer, text: Path, dtype: str, end_id: int, *, is_fast: bool = True
) -> Job:
    """Return the job of encoding chunks of a text: [offset, lengths, ends] to [counts, ids]."""
    arguments = (str(tokenizer.folder), str(text), dtype, end_id, is_fast)
    return Job("lightlm.data.encoding", start_encoding, arguments)


def start_encoding(folder: str, text: str, dtype: str, end_id: int, is_fast: bool) -> Work:
    """Return the function of a job's chunks.

    It raises EnginesDiffer where a sample has other ids in the faster engine.
    """
    encoder = Encoder(load_tokenizer(Path(folder)), is_fast=is_fast)

    def encode(request: Arrays) -> Arrays:
        offset, lengths, ends = request
        with Path(text).open("rb") as file:
            found = encoder.encode(file, Chunk(offset.item(), lengths, ends), dtype, end_id)
        return [found.counts, np.frombuffer(found.ids, dtype)]

    return encode


def cut_chunks(lengths: Iterator[np.ndarray], is_end: np.ndarray) -> Iterator[Chunk]:
    """Yield chunks of about CHUNK_BYTES from the lengths of documents that follow each other, and
    where they end.
    """
    offset = done = 0
    for block in lengths:
        ends = np.cumsum(block)
        first = 0
        while first < len(block):
            before = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(ends, before + CHUNK_BYTES, side="right")))
            yield Chunk(offset + before, block[first:last], is_end[done + first : done + last])
            first = last
        done += len(block)
        offset += int(ends[-1]) if len(ends) else 0


def cut_parts(subset: TextSubset) -> list[list[Chunk]]:
    """Return the parts of a text's training split that are tokenized one after the other: pieces in
    an order that the text alone decides, FIRST_BYTES of them, then always twice as many.
    """
    chunks = list(cut_chunks(subset.read_lengths("train"), subset.read_ends("train")))
    key = hashlib.sha256(subset.fingerprint.encode()).digest()
    order = permute_range(0, len(chunks), len(chunks), key).astype(np.int64).tolist()
    size = FIRST_BYTES // CHUNK_BYTES
    parts = []
    while len(order) >= 2 * size:
        parts.append([chunks[index] for index in order[:size]])
        order = order[size:]
        size = size if len(parts) == 1 else 2 * size
    if order:
        parts.append([chunks[index] for index in order])
    return parts


if __name__ == "__main__":
    serve(start_encoding)
