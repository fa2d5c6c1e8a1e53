"""The lock on the use of the store: pruning removes nothing that a process has open.

Users share the lock until they end, however they end; pruning needs it alone.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = ".store.lock"

_HELD: dict[Path, int] = {}


def use_store(home: Path) -> None:
    """Count this process among the users of the store under `home`, until it ends or uses another.

    It waits while a process prunes. A disk without locks counts no users.
    """
    if home in _HELD or os.name == "nt":
        return

    import fcntl

    while _HELD:
        with suppress(OSError):
            os.close(_HELD.popitem()[1])

    try:
        handle = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return

    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
    except OSError:
        os.close(handle)
    else:
        _HELD[home] = handle


@contextmanager
def claim_store(home: Path) -> Iterator[bool]:
    """Give whether no other process uses the store; none starts to while inside."""
    if os.name == "nt" or not home.is_dir():
        yield True
        return
    from lightlm.store.lock import try_lock

    handle = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield try_lock(handle)
    finally:
        os.close(handle)
