"""The later parts of a large text: tokenized in a thread while training reads the first one, each
committed to the store when it is whole.

A run that dies finds those that are there; the others are made again, to the same bytes.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from lightlm.data.encoding import Chunk, cut_parts, encode_documents
from lightlm.data.shards import (
    LATER_KIND,
    ShardWriter,
    TokenShards,
    choose_dtype,
    encode_anyway,
    name_later,
)
from lightlm.data.subset import TextSubset
from lightlm.data.token_array import TokenArray
from lightlm.data.tokenization.tokenizer import Tokenizer
from lightlm.errors import StoreError
from lightlm.json_object import JsonObject
from lightlm.store.commit import open_commit, write_file
from lightlm.store.lock import ignore
from lightlm.store.stage import open_stage

FAILURE = "later-parts.txt"
"""File in a run's folder that says why no more parts come."""

ENDING_SECONDS = 1.0
"""Seconds that the writer gets to end; a part may be on its way to the disk."""


class _Stopped(Exception):
    """Training is over."""


class PartWriter:
    """Writes the later parts of shards, if they have any. A context manager: at its end what is not
    whole is given up. `num_bytes` and `seconds` are what was tokenized during training.
    """

    def __init__(
        self,
        home: Path,
        shards: TokenShards,
        tokenizer: Tokenizer,
        run_folder: Path,
        *,
        num_processes: int | None = None,
        report: Callable[[str], None] = ignore,
    ) -> None:
        self.num_bytes = 0
        self.seconds = 0.0
        self._home = home
        self._tokenizer = tokenizer
        self._failure = run_folder / FAILURE
        self._num_processes = num_processes
        self._report = report
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None
        if shards.later and shards.text is not None:
            write = threading.Thread(
                target=self._write, args=(shards.text,), name="later parts", daemon=True
            )
            self._thread = write

    def __enter__(self) -> Self:
        """Begin to write."""
        self._failure.unlink(missing_ok=True)
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait a moment until nothing is written any more: what the thread still does is lost."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join(ENDING_SECONDS)

    def _write(self, subset: TextSubset) -> None:
        began = time.monotonic()
        try:
            for part, chunks in list(enumerate(cut_parts(subset)))[1:]:
                self._write_part(subset, part, chunks)
                self.seconds = time.monotonic() - began
        except _Stopped:
            pass
        except Exception as error:  # noqa: BLE001  (training says it, where it waits for a part)
            self._report(f"the rest of the text is not tokenized: {error}")
            with contextlib.suppress(StoreError):
                write_file(self._failure, str(error).encode())

    def _write_part(self, subset: TextSubset, part: int, chunks: list[Chunk]) -> None:
        num_bytes = sum(int(chunk.lengths.sum()) for chunk in chunks)
        stage = open_stage(
            self._home,
            LATER_KIND,
            name_later(subset, self._tokenizer, part),
            lambda folder: encode_anyway(
                lambda is_fast: self._encode(folder, subset, chunks, is_fast=is_fast),
                self._report,
            ),
            num_bytes,
            report=self._report,
        )
        if not stage.reused:
            self.num_bytes += num_bytes

    def _encode(
        self, folder: Path, subset: TextSubset, chunks: list[Chunk], *, is_fast: bool
    ) -> JsonObject:
        dtype = choose_dtype(self._tokenizer)
        encoded = encode_documents(
            subset,
            "train",
            self._tokenizer,
            dtype,
            is_fast=is_fast,
            num_processes=self._num_processes,
            chosen=chunks,
        )
        with ShardWriter(folder, "train") as writer, contextlib.closing(encoded):
            writer.add(np.array([self._tokenizer.end_of_text_id], dtype=dtype))
            for chunk in encoded:
                if self._is_over.is_set():
                    raise _Stopped
                writer.add(np.frombuffer(chunk.ids, dtype=dtype))
        return {"num_tokens": writer.num_tokens, "dtype": dtype}


def open_part(folder: Path) -> TokenArray:
    """Return the ids of a later part, its digests verified."""
    commit = open_commit(folder, LATER_KIND)
    return TokenArray(sorted(folder.glob("train-*.bin")), commit.meta["dtype"])


def list_later(shards: TokenShards) -> list[Path]:
    """Return the folders of the later parts, which may not be there yet."""
    return [shards.folder.parents[1] / LATER_KIND / name for name in shards.later]


def find_failure(run_folder: Path) -> str | None:
    """Return why no more parts come; None while they do."""
    try:
        return (run_folder / FAILURE).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
