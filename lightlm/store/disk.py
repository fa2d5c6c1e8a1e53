"""Durable names and bytes: every fsync, and the disk's refusals as one sentence.

A folder's names and a file's bytes are two promises of a disk; each needs an fsync of its own.
"""

import errno
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lightlm.errors import LightLMError, StoreError

BLOCK_BYTES = 1 << 20

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE})
MISPLACED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP})
CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
DAMAGED = frozenset(
    {errno.EIO, errno.EISDIR, errno.ENOTDIR, errno.EBADMSG, getattr(errno, "EUCLEAN", errno.EIO)}
)
"""Errors of reading that mean damage. Too many open files, for example, does not."""

UNABLE = frozenset({errno.EINVAL, errno.ENOTSUP})
"""Errors of file systems that cannot sync folders (SMB, some of FUSE); SQLite ignores them, too."""

# How Rust's libraries (safetensors, tokenizers) tell an operating system's error inside one of
# their own.
_RUST_ERROR = re.compile(r"\(os error (\d+)\)|Os \{ code: (\d+)")


def sync_file(handle: int) -> None:
    """Wait until the disk has the bytes of an open file."""
    os.fsync(handle)
    if hasattr(os, "uname") and os.uname().sysname == "Darwin":
        import fcntl

        # There fsync leaves the bytes in the drive's own memory.
        fcntl.fcntl(handle, getattr(fcntl, "F_FULLFSYNC", 51))


def time_sync(folder: Path) -> float:
    """Return the seconds that the disk below `folder` takes to confirm a small write: the shorter
    of two, because the first may wait for what others wrote.
    """
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(2):
            began = time.perf_counter()
            file.write(b"x")
            file.flush()
            sync_file(file.fileno())
            times.append(time.perf_counter() - began)
    return min(times)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the folder's names. Windows cannot, and does not need to for NTFS's
    journal.
    """
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNABLE:
            raise
    finally:
        os.close(handle)


def make_folder(folder: Path, *, durable: bool = True) -> None:
    """Create `folder` and those above it, durably: what is committed inside is lost with a folder
    that is lost.
    """
    if not durable:
        folder.mkdir(parents=True, exist_ok=True)
        return
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    # Whoever made the last one that is there may have died before the disk had its name.
    if os.access(folder.parent, os.R_OK):
        sync_folder(folder.parent)
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def write_and_sync(path: Path, content: bytes) -> None:
    """Create `path` with `content` and wait until the disk has it."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        sync_file(file.fileno())


def sync_written(path: Path) -> None:
    """Wait until the disk has the bytes of a file that another process wrote."""
    # Windows syncs only what is open for writing.
    with path.open("r+b" if os.name == "nt" else "rb") as file:
        sync_file(file.fileno())


def list_tree(folder: Path) -> list[Path]:
    """Return all paths below `folder`, sorted; links are listed and not followed.

    Raises:
        OSError: a folder cannot be listed. Path.rglob passes over that in silence (Python 3.13),
            and a file with it.
    """

    def fail(error: OSError) -> None:
        raise error

    walk = os.walk(folder, onerror=fail)
    return sorted(
        Path(parent, name) for parent, folders, files in walk for name in (*folders, *files)
    )


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def explain_refusals(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses inside into one sentence with the path and what to do.

    Raises:
        StoreError: in place of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise describe_refusal(error, path) from None


@contextmanager
def explain_writer(path: Path, folder: Path) -> Iterator[None]:
    """Do so for code that fills `folder` and also reads elsewhere: another file's or a network's
    error is not ours.

    Raises:
        StoreError: in place of the disk's refusal, also where a library of Rust tells it as an
            error of its own.
    """
    try:
        yield
    except LightLMError:
        raise
    except Exception as error:
        refusal = _find_refusal(error, folder)
        if refusal is None:
            raise
        raise describe_refusal(refusal, path) from error


def describe_refusal(error: OSError, path: Path) -> StoreError:
    """Return the operating system's refusal to write `path` as one sentence with what to do."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in FULL:
        free = shutil.disk_usage(nearest(path)).free
        return StoreError(
            f"the disk is full: {path} could not be written, {free / 1e6:,.0f} MB are free; free "
            "some space (`lightlm store` lists what is there, `lightlm store prune` drops what can "
            "be made again) and run the same command again"
        )

    if error.errno in CLOSED:
        return StoreError(
            f"{path} cannot be written ({reason}); make it writable or give another LIGHTLM_HOME"
        )

    if error.errno in EXHAUSTED:
        return describe_exhaustion(path)

    if error.errno in MISPLACED:
        return StoreError(
            f"{path} could not be written ({reason}); check that path, or give another"
        )

    return StoreError(
        f"{path} could not be written ({reason}); look after that disk or give a LIGHTLM_HOME on "
        "another, and run the same command again"
    )


def describe_exhaustion(path: Path) -> StoreError:
    """Return the error of a process that may open no more files."""
    limit = 0
    with suppress(ImportError, OSError, ValueError):  # Windows has no such limit to ask for
        import resource

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    may_open = (
        f"the {limit:,} files that this process may open"
        if limit > 0
        else "all files that may be open"
    )

    return StoreError(
        f"{path} could not be opened: too many open files, {may_open} (ulimit -n) are in use; "
        f"allow more with `ulimit -n {max(4096, 2 * limit)}` and run the same command again"
    )


def _find_refusal(error: Exception, folder: Path) -> OSError | None:
    """Return what `folder`'s disk refused; None where the error came from elsewhere."""
    refusals = FULL | {errno.EROFS, errno.EIO}
    if isinstance(error, OSError):
        inside = isinstance(error.filename, str) and Path(error.filename).is_relative_to(folder)
        return error if inside or error.errno in refusals else None
    found = _RUST_ERROR.search(str(error))
    code = int(found[1] or found[2]) if found else 0
    return OSError(code, os.strerror(code)) if code in refusals else None


def nearest(path: Path) -> Path:
    """Return the path itself, or the first one above it that is there."""
    while not path.exists():
        path = path.parent
    return path
