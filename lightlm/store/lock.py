"""Locks that the kernel holds: they end with their process, however it ends, and never go stale."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lightlm.errors import BusyError
from lightlm.process_identity import describe_own_process, identify_process
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
        # Only for messages and lists: a full disk takes no lock away.
        with suppress(OSError):
            os.ftruncate(handle, 0)
            os.write(handle, f"{describe_own_process()}\n".encode())
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


def describe_holder(path: Path) -> str:
    """Return the number and identity of the process that held a lock last, whether it lives or not;
    "" where that cannot be read.
    """
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def find_holder(path: Path) -> int | None:
    """Return the number of the process that held a lock last and still lives; None if none does.

    It does not ask for the kernel's lock: holding it for a moment would refuse whoever wants it.

    Raises:
        PermissionError: it lives, on Windows, where a locked file cannot be read.
    """
    number, identity = _read_file(path)
    return number if number and identity and identify_process(number) == identity else None


def _read_file(path: Path) -> tuple[int | None, str]:
    try:
        number, _, identity = path.read_text("ascii").strip().partition(" ")
        return int(number), identity
    except PermissionError:
        raise
    except (OSError, ValueError):
        return None, ""


def _read_holder(handle: int) -> str:
    """Return the holder's number; "?" while it has not written it, or where locked files cannot be
    read (Windows).
    """
    if not hasattr(os, "pread"):
        return "?"
    number, _, _ = os.pread(handle, 80, 0).decode("ascii", "replace").partition(" ")
    return number.strip() or "?"
