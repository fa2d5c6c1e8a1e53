"""Scratch folders, where a commit is written before it has its name, and their removal.

A writer is alive while the kernel holds its lock on the folder. A process's number would not do: it
is given out again, is 1 in every container, and means nothing in another container.
"""

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lightlm.store.disk import explain_refusals
from lightlm.store.lock import try_lock

TEMPORARY = ".tmp-"
TRASH = ".trash-"

ABANDONED_SECONDS = 86_400.0
"""Age from which a folder that cannot be locked (Windows, some network disks), or a file, counts as
abandoned.
"""

# A person's own folder may lie next to it, as an export's does: `.tmp-notes` is not ours.
_SCRATCH = re.compile(rf"({re.escape(TEMPORARY)}|{re.escape(TRASH)})[0-9a-f]{{16}}")


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Give a new private folder in `parent`, locked; when left, it is gone unless it was renamed.

    Raises:
        StoreError: the disk refused.
    """
    with explain_refusals(parent):
        folder, handle = _create(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            with suppress(OSError):
                os.close(handle)


def name_temporary(parent: Path) -> Path:
    """Return an unused name in `parent`."""
    return parent / f"{TEMPORARY}{secrets.token_hex(8)}"


def name_trash(parent: Path) -> Path:
    """Return a name in `parent` for what is to be deleted."""
    return parent / f"{TRASH}{secrets.token_hex(8)}"


def is_scratch(name: str) -> bool:
    """Return whether this is a name that name_temporary or name_trash gives."""
    return _SCRATCH.fullmatch(name) is not None


def sweep(parent: Path) -> None:
    """Remove what dead writers left in `parent`; what has another's name stays."""
    for path in parent.iterdir():
        if not is_scratch(path.name):
            continue
        if path.name.startswith(TRASH):
            _remove(path)
        else:
            _remove_abandoned(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _create(parent: Path) -> tuple[Path, int | None]:
    while True:
        folder = name_temporary(parent)
        folder.mkdir(mode=0o700)
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        except OSError:
            return folder, None
        try:
            is_ours = try_lock(handle)
        except OSError:
            os.close(handle)
            return folder, None
        # A sweeper may have come between creation and lock: then it is gone, or about to be.
        if is_ours and folder.exists():
            return folder, handle
        os.close(handle)


def _remove_abandoned(path: Path) -> None:
    """Remove what no writer holds. A folder is locked until it is gone: a writer that has just made
    it must not lock it in between.
    """
    handle = None
    try:
        try:
            if not path.is_file():
                handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            is_abandoned = _is_old(path) if handle is None else try_lock(handle)
        except FileNotFoundError:
            is_abandoned = False
        except OSError:
            is_abandoned = _is_old(path)
        if is_abandoned:
            _remove(path)
    finally:
        if handle is not None:
            os.close(handle)


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_SECONDS
    except OSError:
        return False
