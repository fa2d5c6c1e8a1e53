"""Documents to ids at the speed of the machine: a faster engine, checked against tokenizers, in a
process a core.

Owns the choice of engine, the processes and their order; not the layout of the stream (shards). The
ids are always those of the tokenizers library: samples of every chunk are encoded by both engines,
and one difference ends the use of the faster one.
"""

import contextlib
import json
import os
import struct
import subprocess
import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from lightlm.child_process import SAFE_PATH, python_command
from lightlm.data.subset import Split, TextSubset
from lightlm.data.tokenization.hard_texts import HARD_TEXTS
from lightlm.data.tokenization.tokenizer import Tokenizer, load_tokenizer
from lightlm.data.tokenization.trial import library_errors
from lightlm.errors import TokenizerError

CHUNK_BYTES = 1 << 22
"""Of text that a process takes at a time: 4 MB in, about 2 MB of ids out."""

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

HEADER = struct.Struct("<qq")
"""Of an answer: number of documents and bytes of ids; -1 as the first: the engines differ."""

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
            self.engine = "kitoken"

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
            if self.engine != "tokenizers":
                self._check(document, length)
            ids.extend(self._encode(document))
            if is_end:
                ids.append(end_id)
            counts[index] = len(ids) - before

        if sys.byteorder == "big":
            ids.byteswap()

        return EncodedChunk(counts, ids.tobytes())

    def _check(self, document: str, length: int) -> None:
        self._since_check += length
        if self._since_check < CHECK_EVERY_BYTES:
            return
        self._since_check = 0
        sample = document[:CHECK_BYTES]
        if list(self._encode(sample)) != self.tokenizer.encode(sample):
            raise EnginesDiffer(sample)


def open_fast_engine(tokenizer: Tokenizer) -> Encode | None:
    """Return kitoken's encoding for a tokenizer; None where it is not installed, or does not give
    the same ids.
    """
    try:
        from kitoken import Kitoken
    except ImportError:
        return None

    values = json.loads(tokenizer.engine.to_str())
    if any(not token["special"] for token in values.get("added_tokens") or []):
        # cut out of the text before anything else; kitoken would do so by rules of its own
        return None

    # Special tokens that stand in text are text; kitoken would split there, so it is not told of
    # them.
    values["added_tokens"] = []
    end = tokenizer.engine.id_to_token(tokenizer.end_of_text_id)
    trials = (*HARD_TEXTS, f"a {end}b\n\n  c")

    try:
        # for a layout that it does not know, or a pattern that it has no engine for
        with library_errors("kitoken"):
            engine = Kitoken.from_tokenizers(json.dumps(values).encode())
            is_equal = all(
                list(engine.encode(trial, False)) == tokenizer.encode(trial) for trial in trials
            )
    except TokenizerError:
        return None

    def encode(text: str) -> list[int]:
        return engine.encode(text, False)

    return encode if is_equal else None


def encode_documents(
    subset: TextSubset,
    split: Split,
    tokenizer: Tokenizer,
    dtype: str,
    *,
    is_fast: bool = True,
    num_processes: int | None = None,
) -> Iterator[EncodedChunk]:
    """Yield the ids of a split's documents in order, each document ended by end-of-text.

    At most a few chunks a process are in memory at a time.

    Raises:
        EnginesDiffer: the faster engine is not this tokenizer's; begin again with `is_fast=False`.
    """
    path = subset.text_path(split)
    end_id = tokenizer.end_of_text_id
    num_bytes = path.stat().st_size
    if num_processes is None:
        num_processes = min(count_cores(), MAX_PROCESSES, num_bytes // LEAST_BYTES_PER_PROCESS)

    chunks = cut_chunks(subset.read_lengths(split), subset.read_ends(split))
    if num_processes < 2:
        encoder = Encoder(tokenizer, is_fast=is_fast)
        with path.open("rb") as text:
            for chunk in chunks:
                yield encoder.encode(text, chunk, dtype, end_id)
        return

    request = {
        "folder": str(tokenizer.folder),
        "text": str(path),
        "dtype": dtype,
        "end": end_id,
        "is_fast": is_fast,
    }

    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(EncodingProcess(request)) for _ in range(num_processes)]
        pool = stack.enter_context(ThreadPoolExecutor(num_processes, thread_name_prefix="encoding"))
        idle: deque[EncodingProcess] = deque(workers)

        def encode(chunk: Chunk) -> EncodedChunk:
            worker = idle.popleft()  # as many threads as workers: one is always idle here
            try:
                return worker.encode(chunk)
            finally:
                idle.append(worker)

        waiting: deque[Future[EncodedChunk]] = deque()
        try:
            for chunk in chunks:
                waiting.append(pool.submit(encode, chunk))
                if len(waiting) > 2 * num_processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


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


class EncodingProcess:
    """One child process that encodes chunks of a file; where it dies, its chunk is encoded here."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._request = request
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
            python_command("lightlm.data.encoding", json.dumps(request)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # an interrupt is the parent's to answer; the process ends with its input
            start_new_session=True,
            # One thread each: tokenizers would otherwise start one a core in every process.
            env=os.environ
            | SAFE_PATH
            | {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )

        self._own: Encoder | None = None

    def encode(self, chunk: Chunk) -> EncodedChunk:
        """Return the ids of a chunk.

        Raises:
            EnginesDiffer: as the process found.
        """
        if self._process is not None:
            try:
                return self._ask(self._process, chunk)
            except (OSError, EOFError):
                self.close()
        if self._own is None:
            folder = Path(self._request["folder"])
            self._own = Encoder(load_tokenizer(folder), is_fast=self._request["is_fast"])
        with Path(self._request["text"]).open("rb") as text:
            return self._own.encode(text, chunk, self._request["dtype"], self._request["end"])

    def _ask(self, process: subprocess.Popen[bytes], chunk: Chunk) -> EncodedChunk:
        assert process.stdin is not None and process.stdout is not None
        header = HEADER.pack(chunk.offset, len(chunk.lengths))
        process.stdin.write(
            header + chunk.lengths.astype("<i8").tobytes() + chunk.ends.astype(np.bool_).tobytes()
        )
        process.stdin.flush()
        num_documents, num_bytes = HEADER.unpack(read_exactly(process.stdout, HEADER.size))
        if num_documents < 0:
            raise EnginesDiffer
        counts = np.frombuffer(read_exactly(process.stdout, 8 * num_documents), dtype="<i8")
        return EncodedChunk(counts, read_exactly(process.stdout, num_bytes))

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __enter__(self) -> "EncodingProcess":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.close()


def read_exactly(stream: BinaryIO | Any, size: int) -> bytes:
    """Return `size` bytes.

    Raises:
        EOFError: the stream ended before.
    """
    content = stream.read(size)
    if len(content) < size:
        raise EOFError(f"wanted {size} bytes, got {len(content)}")
    return content


def count_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def serve(request: dict[str, Any], requests: BinaryIO, answers: BinaryIO) -> None:
    """Encode the chunks that are asked for, until the requests end."""
    encoder = Encoder(load_tokenizer(Path(request["folder"])), is_fast=request["is_fast"])
    with Path(request["text"]).open("rb") as text:
        while len(header := requests.read(HEADER.size)) == HEADER.size:
            offset, num_documents = HEADER.unpack(header)
            lengths = np.frombuffer(read_exactly(requests, 8 * num_documents), dtype="<i8")
            ends = np.frombuffer(read_exactly(requests, num_documents), dtype=np.bool_)
            try:
                found = encoder.encode(
                    text, Chunk(offset, lengths, ends), request["dtype"], request["end"]
                )
            except EnginesDiffer:
                answers.write(HEADER.pack(-1, 0))
            else:
                answers.write(
                    HEADER.pack(len(found.counts), len(found.ids)) + found.counts.tobytes()
                )
                answers.write(found.ids)
            answers.flush()


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
