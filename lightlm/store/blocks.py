"""A cache of blocks on disk, each under the SHA-256 of its content: verified whenever it is opened,
and the blocks that were used longest ago are dropped beyond so many bytes.

Several processes may share it. A block that another one drops stays readable where it is mapped.
"""

import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from lightlm.errors import CorruptError
from lightlm.store.commit import write_file
from lightlm.store.disk import explain_refusals, make_folder
from lightlm.store.scratch import TEMPORARY


class BlockCache:
    """Blocks in `folder`, at most about `max_bytes` of them."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        with explain_refusals(folder):
            make_folder(folder)

    def read(self, digest: str, fetch: Callable[[], bytes]) -> np.ndarray:
        """Return a block's bytes (uint8): mapped from the disk, or fetched, verified, and kept.

        Raises:
            CorruptError: what was fetched has another SHA-256.
            StoreError: the disk refused.
        """
        path = self.folder / digest
        with suppress(OSError, ValueError):  # not there, or empty after a crash
            block = np.memmap(path, np.uint8, "r")
            if hashlib.sha256(block.data).hexdigest() == digest:
                with suppress(OSError):
                    os.utime(path)
                return np.asarray(block)

        content = fetch()
        found = hashlib.sha256(content).hexdigest()
        if found != digest:
            raise CorruptError(f"a block has SHA-256 {found[:16]}..., wanted {digest[:16]}...")

        write_file(path, content, durable=False)
        self._drop_oldest()
        return np.frombuffer(content, np.uint8)

    def _drop_oldest(self) -> None:
        with self._lock:
            blocks = []
            for entry in os.scandir(self.folder):
                with suppress(FileNotFoundError):  # another process dropped it
                    status = entry.stat()
                    if not entry.name.startswith(TEMPORARY):
                        blocks.append((status.st_mtime_ns, status.st_size, Path(entry.path)))
            surplus = sum(size for _, size, _ in blocks) - self.max_bytes
            for _, size, path in sorted(blocks):
                if surplus <= 0:
                    return
                with suppress(OSError):  # Windows keeps a mapped file: the next one goes
                    path.unlink()
                surplus -= size
