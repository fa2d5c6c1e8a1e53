"""Append-only journals: one record a line, framed by its CRC, so that a torn tail is seen and cut.

A line is eight hex digits of CRC-32, a space, compact JSON, a newline. A record is one write() call: it survives the
death of the process at once, and of the machine when `durable`.
"""

import json
import os
import threading
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightlm.store.commit import explain_refusals

CRC_DIGITS = 8


class Journal:
    """Appends records to a file; safe to share between threads. Opening cuts a torn tail off."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with explain_refusals(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            end = max((offset for _, offset in read_journal(path)), default=0)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            self._handle: int | None = os.open(path, flags, 0o600)
            os.ftruncate(self._handle, end)

    def append(self, record: Mapping[str, Any], *, durable: bool = False) -> None:
        """Add a record; with `durable`, wait until the disk has it.

        Raises:
            StoreError: the disk refused.
            ValueError: the record is not JSON, or the journal is closed.
        """
        line = frame(record)
        with self._lock, explain_refusals(self.path):
            if self._handle is None:
                raise ValueError(f"{self.path} is closed")
            view = memoryview(line)
            while view:
                view = view[os.write(self._handle, view) :]
            if durable:
                os.fsync(self._handle)

    def close(self) -> None:
        """Close the file; the records stay."""
        with self._lock:
            if self._handle is not None:
                os.close(self._handle)
                self._handle = None


def frame(record: Mapping[str, Any]) -> bytes:
    """Return the line of a record."""
    payload = json.dumps(record, separators=(",", ":"), ensure_ascii=True, allow_nan=True).encode()
    return b"%08x " % zlib.crc32(payload) + payload + b"\n"


def read_journal(path: Path, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each record from `offset` on with the offset after it; end at the first line that is not whole."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(offset)
        for line in file:
            record = _unframe(line)
            if record is None:
                return
            offset += len(line)
            yield record, offset


def _unframe(line: bytes) -> dict[str, Any] | None:
    payload = line[CRC_DIGITS + 1 : -1]
    if not line.endswith(b"\n") or line[CRC_DIGITS : CRC_DIGITS + 1] != b" ":
        return None
    try:
        if int(line[:CRC_DIGITS], 16) != zlib.crc32(payload):
            return None
        record = json.loads(payload)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
