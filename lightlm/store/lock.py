"""Locks that the kernel holds: they end with their process, however it ends, and never go stale."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lightlm.errors import BusyError
from lightlm.store.commit import explain_refusals

RETRY_SECONDS = 0.1
"""Between two tries; a waiter takes over this soon after the holder's death."""


def ignore(message: str) -> None:
    """Take a message and say nothing."""


@contextmanager
def hold_lock(path: Path, *, wait: bool = True, report: Callable[[str], None] = ignore) -> Iterator[None]:
    """Hold the lock of `path` inside; wait for whoever has it, or not.

    Raises:
        BusyError: somebody has it and `wait` is False; names the process.
    """
    with explain_refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        told = False
        while not _try_lock(handle):
            holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip() if hasattr(os, "pread") else "?"
            if not wait:
                raise BusyError(f"process {holder} holds {path}; wait for it to end, or stop it")
            if not told:
                report(f"waiting for process {holder}, which is making the same thing")
                told = True
            time.sleep(RETRY_SECONDS)
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
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
