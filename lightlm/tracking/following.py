"""A copy of a run's record elsewhere, written from the journal while it grows.

The journal is the original. Nothing waits for a copy, and an error ends it alone.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from lightlm.tracking.record import AnyRecord, Finish, Start, read_records

POLL_SECONDS = 1.0

SWITCHES = ("true", "false", "yes", "no", "on", "off", "1", "0")
"""Words that are meant to switch a copy on or off, and would be names of folders or projects."""


class Sink(Protocol):
    """What a copy is written into."""

    def write(self, record: AnyRecord) -> None:
        """Write what is shown of a record."""
        ...

    def flush(self) -> None:
        """Let readers see what was written."""
        ...

    def close(self) -> None:
        """Write the rest."""
        ...


def follow(
    folder: Path,
    is_over: threading.Event,
    open_sink: Callable[[Start], Sink | None],
    sent: int = 0,
    keep_sent: Callable[[int], None] = lambda offset: None,
) -> None:
    """Write the record of the run in `folder` until its journal has the end, or `is_over`.

    `open_sink` gets the run's start, and returns None where no copy is asked for. Records up to
    byte `sent` are not written again; `keep_sent` gets the byte up to which all is written.
    """
    sink: Sink | None = None
    offset = 0
    is_finished = False

    try:
        while not is_finished:
            is_last_look = is_over.is_set()
            for record, end in read_records(folder, offset):
                offset = end
                if isinstance(record, Start) and sink is None:
                    sink = open_sink(record)
                    if sink is None:
                        return
                if sink is not None and end > sent:
                    sink.write(record)
                is_finished = isinstance(record, Finish)
            if sink is not None:
                sink.flush()
                keep_sent(offset)
            if is_last_look:
                return
            if not is_finished:
                is_over.wait(POLL_SECONDS)
    finally:
        if sink is not None:
            sink.close()
