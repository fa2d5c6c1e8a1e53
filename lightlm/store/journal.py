"""Append-only journals: one record a line, framed by its CRC, so that a torn tail is seen and cut.

A line is eight hex digits of CRC-32, a space, compact JSON, a newline. A record is one write()
call: it survives the death of the process at once, and of the machine when `durable`. Damage costs
the records that it hits and no other.
"""

import json
import logging
import os
import threading
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightlm.json_object import JsonObject
from lightlm.store.disk import BLOCK_BYTES, explain_refusals, make_folder, sync_file, sync_folder

CRC_DIGITS = 8

LOGGER = logging.getLogger(__name__)


class Journal:
    """Appends records to a file; safe to share between threads. Opening cuts a torn tail off, and
    nothing else.

    Raises:
        StoreError: the disk refused.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._is_torn = False

        with explain_refusals(path):
            make_folder(path.parent)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            handle = os.open(path, flags, 0o600)
            try:
                # Its name first: a durable record in a file without a name would be lost.
                sync_folder(path.parent)
                os.ftruncate(handle, _find_end(handle))
            except BaseException:
                os.close(handle)
                raise

        self._handle: int | None = handle

    def append(self, record: Mapping[str, Any], *, durable: bool = False) -> None:
        """Add a record; with `durable`, wait until the disk has it.

        Raises:
            StoreError: the disk refused; the record is not there, or (durable) may not outlive the
                machine.
            ValueError: the record is not JSON, or the journal is closed.
        """
        line = frame(record)
        with self._lock, explain_refusals(self.path):
            if self._handle is None:
                raise ValueError(f"{self.path} is closed")
            # A full disk took half a line: it ends here, or it would swallow this record.
            view = memoryview(b"\n" + line if self._is_torn else line)
            self._is_torn = True
            while view:
                view = view[os.write(self._handle, view) :]
            self._is_torn = False
            if durable:
                sync_file(self._handle)

    def close(self) -> None:
        """Close the file; the records stay.

        Raises:
            StoreError: the disk refused what it had taken before (network disks do); those not
                durable may be lost.
        """
        with self._lock, explain_refusals(self.path):
            if self._handle is not None:
                handle = self._handle
                self._handle = None
                os.close(handle)


def frame(record: Mapping[str, Any]) -> bytes:
    """Return the line of a record."""
    payload = json.dumps(record, separators=(",", ":"), ensure_ascii=True, allow_nan=True).encode()
    return b"%08x " % zlib.crc32(payload) + payload + b"\n"


def read_journal(path: Path, offset: int = 0) -> Iterator[tuple[JsonObject, int]]:
    """Yield each record from `offset` on with the offset after it; end at a line that has no end
    yet.

    A line that ends but is damaged is left out, with a warning to the log.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return

    with file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            record = _unframe(line)
            if record is not None:
                yield record, offset
            elif line != b"\n":
                LOGGER.warning(
                    "%s is damaged at byte %d: a record is left out", path, offset - len(line)
                )


def _unframe(line: bytes) -> JsonObject | None:
    payload = line[CRC_DIGITS + 1 : -1]
    # Compared as bytes: int() would take "+000000f" for a number, too.
    if line[: CRC_DIGITS + 1] != b"%08x " % zlib.crc32(payload):
        return None
    try:
        record = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _find_end(handle: int) -> int:
    """Return the offset after the last line that has an end."""
    end = os.fstat(handle).st_size
    while end > 0:
        start = max(0, end - BLOCK_BYTES)
        os.lseek(handle, start, os.SEEK_SET)
        newline = os.read(handle, end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
