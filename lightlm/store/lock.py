"""Locks that the kernel holds: they end with their process, however it ends, and never go stale."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lightlm.errors import BusyError
from lightlm.store.disk import explain_refusals, make_folder

RETRY_SECONDS = 0.1
"""Seconds between two tries; a waiter takes over this soon after the holder's death."""

REPORT_SECONDS = 10.0
"""Seconds between two messages to whoever waits."""


def ignore(message: str) -> None:
    """Drop a message."""


@contextmanager
def hold_lock(
    path: Path, *, wait: bool = True, report: Callable[[str], None] = ignore
) -> Iterator[None]:
    """Hold the lock of `path` inside; wait for whoever has it, or not. The file stays: who deleted
    it would split it.

    Raises:
        BusyError: another process has it and `wait` is False; names the process.
        StoreError: the file cannot be made, or its file system has no locks.
    """
    with explain_refusals(path):
        make_folder(path.parent)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)

    try:
        with explain_refusals(path):
            is_ours = try_lock(handle)
        if not is_ours and not wait:
            raise BusyError(
                f"process {_read_holder(handle)} holds {path}; wait for it to end, or stop it"
            )
        began = reported = time.monotonic()
        if not is_ours:
            report(f"waiting for process {_read_holder(handle)}, which is making the same thing")
        while not is_ours:
            time.sleep(RETRY_SECONDS)
            is_ours = try_lock(handle)
            if not is_ours and time.monotonic() - reported >= REPORT_SECONDS:
                reported = time.monotonic()
                seconds = reported - began
                report(f"still waiting for process {_read_holder(handle)}, for {seconds:.0f} s now")
        # The number is for the message only: a full disk takes no lock away.
        with suppress(OSError):
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        with suppress(OSError):
            os.close(handle)


def try_lock(handle: int) -> bool:
    """Take the kernel's lock on an open file or folder; return whether it is ours, until `handle`
    is closed.

    Raises:
        OSError: the file system has no locks.
    """
    if os.name == "nt":
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
        except OSError:
            return False
        return True

    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False

    return True


def _read_holder(handle: int) -> str:
    """Return the holder's number; "?" while it has not written it, or where locked files cannot be
    read (Windows).
    """
    if not hasattr(os, "pread"):
        return "?"
    return os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "?"
