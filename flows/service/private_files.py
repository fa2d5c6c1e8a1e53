"""Files that only their owner reads: 0600 in folders of 0700, from their first byte on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightlm.store.commit import write_file
from lightlm.store.disk import explain_refusals


@contextmanager
def private_mask() -> Iterator[None]:
    """Make whatever this process creates inside readable by its owner alone."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def write_private_file(path: Path, content: bytes) -> None:
    """Put `content` under `path`, durably, for the owner alone.

    Raises:
        StoreError: the disk refused.
    """
    with private_mask():
        write_file(path, content)


def make_private_folder(folder: Path) -> None:
    """Create a folder for the owner alone, and close one that is there to others.

    Raises:
        StoreError: the disk refused.
    """
    with explain_refusals(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
