"""The parent's side of the child that parses documents: feeds it files, takes text, kills it beyond
its limits.

One child takes many files, for starting one costs 0.1 s. What it refuses, or dies of, is an error
with the file's name; the next file finds a child that lives.
"""

import contextlib
import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import BinaryIO

from lightlm.child_process import SAFE_PATH, python_command
from lightlm.data.characters.decoding import Opener
from lightlm.data.characters.file_checks import LONGEST_ROW_BYTES, explain_unreadable
from lightlm.data.formats.child import (
    ABORTED,
    BLOCK_BYTES,
    END,
    FINISHED,
    LAST,
    LENGTH,
    MEMORY_BYTES,
    PART,
    REFUSED,
)
from lightlm.errors import DatasetError

FILE_SECONDS = 60.0
BYTES_PER_SECOND = 50_000
"""Seconds that a file may take in the child: so many, and one for so many bytes of it. pypdf reads
200 to 300 kB of a PDF of text a second, the other parsers some MB (2 CPU cores, shared,
2026-11-30).
"""

OUTPUT_BYTES = 1 << 26
OUTPUT_RATIO = 20
"""Bytes of text that a file may give: so many, and so many for each byte of it. XML in .docx packs
10-fold.
"""

ANSWERS_AHEAD = 8
LONGEST_ANSWER = 1 << 22


class DocumentReader:
    """One child process that parses document files, started with the first one and anew after a
    kill.
    """

    def __init__(self, seconds: float = FILE_SECONDS, memory_bytes: int = MEMORY_BYTES) -> None:
        self._memory_bytes = memory_bytes
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[tuple[bytes, bytes] | None] = queue.Queue()
        self._lock = threading.Lock()

    def extract(self, open_input: Opener, kind: str, name: str) -> Iterator[str]:
        """Yield the documents of one file.

        Raises:
            DatasetError: it cannot be read, or exceeds a limit.
        """
        if not self._lock.acquire(blocking=False):
            # Another file is being read; a generator may hold it for long.
            reader = DocumentReader(self._seconds, self._memory_bytes)
            try:
                yield from reader.extract(open_input, kind, name)
            finally:
                reader.close()
            return

        try:
            yield from self._extract(open_input, kind, name)
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the child."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        while self._answers.get() is not None:  # its reading thread may wait for room
            pass
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):  # what was not sent
                stream.close()
        self._process = None

    def _extract(self, open_input: Opener, kind: str, name: str) -> Iterator[str]:
        feeder = _Feeder(self._start(), open_input, kind, name)
        is_ready = False
        try:
            yield from self._receive(feeder, name)
            is_ready = True
        except DatasetError:
            is_ready = feeder.is_refused
            raise
        finally:
            # A child that was not left at the end of its file cannot take the next one.
            if not is_ready:
                self.close()
            feeder.thread.join()

    def _receive(self, feeder: "_Feeder", name: str) -> Iterator[str]:
        parts: list[bytes] = []
        length = 0
        total = 0
        waited = 0.0

        while True:
            begun = time.monotonic()
            kind, payload = self._next_answer(feeder, waited, name)
            waited += time.monotonic() - begun
            if kind == FINISHED:
                return
            if kind in (REFUSED, LAST):
                feeder.is_refused = kind == REFUSED
                raise feeder.error or DatasetError(f"{name} {payload.decode('utf-8', 'replace')}")

            total += len(payload)
            length += len(payload)
            if (
                total > OUTPUT_BYTES + OUTPUT_RATIO * feeder.bytes_sent
                or length > LONGEST_ROW_BYTES
            ):
                raise DatasetError(
                    f"{name} gives more than {total / 1e6:,.0f} MB of text from "
                    f"{feeder.bytes_sent / 1e6:,.1f} MB: it "
                    "looks made to fill memory; convert it to text if you know it"
                )
            parts.append(payload)
            if kind == END:
                yield b"".join(parts).decode("utf-8", "replace")
                parts = []
                length = 0

    def _next_answer(self, feeder: "_Feeder", waited: float, name: str) -> tuple[bytes, bytes]:
        """Return the child's next answer, after so many seconds of waiting for earlier ones."""
        begun = time.monotonic()
        while True:
            allowed = (
                self._seconds + feeder.bytes_sent / BYTES_PER_SECOND + feeder.count_source_seconds()
            )
            left = allowed - waited - (time.monotonic() - begun)
            if left <= 0:
                raise DatasetError(
                    f"{name} was given up: its parser needs more than {allowed:,.0f} s; convert "
                    "it to text"
                )
            try:
                found = self._answers.get(timeout=left)
            except queue.Empty:
                continue
            if found is not None:
                return found
            self._answers.put(None)
            code = self._process.wait() if self._process is not None else 0
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise DatasetError(f"{name} ended its parser ({how}); convert it to text")

    def _start(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is None:
            return self._process

        self.close()
        self._answers = queue.Queue(ANSWERS_AHEAD)
        self._process = subprocess.Popen(
            python_command("lightlm.data.formats.child", str(self._memory_bytes)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | SAFE_PATH,
            # an interrupt is the parent's to answer; the child ends with its input
            start_new_session=True,
        )

        threading.Thread(
            target=_read_answers, args=(self._process.stdout, self._answers), daemon=True
        ).start()
        return self._process


class _Feeder:
    """Sends a file to the child from a thread, while the parent reads what comes back."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", open_input: Opener, kind: str, name: str
    ) -> None:
        assert process.stdin is not None
        self._pipe = process.stdin
        self._open = open_input
        self._kind = kind
        self._name = name
        self.bytes_sent = 0
        self.error: DatasetError | None = None
        self.is_refused = False
        self._source_seconds = 0.0
        self._reading_since: float | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def count_source_seconds(self) -> float:
        """Return the seconds that the input itself took, which are none of the child's."""
        since = self._reading_since
        return self._source_seconds + (time.monotonic() - since if since is not None else 0.0)

    def _run(self) -> None:
        try:
            self._pipe.write(json.dumps({"kind": self._kind}).encode() + b"\n")
            self._send_file()
            self._pipe.flush()
        except (OSError, ValueError):
            return  # the child ended, or was killed and its pipe closed; the parent says why

    def _send_file(self) -> None:
        try:
            with self._reading():
                stream = self._open()
            with stream:
                while True:
                    with self._reading():
                        block = stream.read(BLOCK_BYTES)
                    self._pipe.write(LENGTH.pack(len(block)) + block)
                    self.bytes_sent += len(block)
                    if not block:
                        return
        except DatasetError as error:
            self.error = error
            self._pipe.write(LENGTH.pack(ABORTED))

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Count the time, and put failures of the disk in words."""
        self._reading_since = time.monotonic()
        try:
            with explain_unreadable(self._name):
                yield
        finally:
            self._source_seconds = self.count_source_seconds()
            self._reading_since = None


def _read_answers(stream: BinaryIO, answers: "queue.Queue[tuple[bytes, bytes] | None]") -> None:
    """Put each answer of the child into a queue, and None at its end."""
    with contextlib.suppress(OSError, ValueError):
        while len(header := stream.read(1 + LENGTH.size)) == 1 + LENGTH.size:
            length = LENGTH.unpack(header[1:])[0]
            if length > LONGEST_ANSWER or header[:1] not in (PART, END, FINISHED, REFUSED, LAST):
                break
            payload = stream.read(length)
            if len(payload) < length:
                break
            answers.put((header[:1], payload))
    answers.put(None)
