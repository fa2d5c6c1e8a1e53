"""Durable commits: a folder either is there, complete and verifiable, or is not there at all.

Owns the order that makes it so: write into a temporary folder, fsync each file, manifest last, fsync, rename, fsync
the parent. Committed folders are never changed. Source of the order: the crash states of RELIABILITY F4.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightlm.errors import CorruptError, StoreError

MANIFEST = "manifest.json"
SCHEMA = 1
TEMPORARY = ".tmp-"
TRASH = ".trash-"

BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Commit:
    """A committed folder. `digest` is the SHA-256 of its table of files; `meta` what its writer said of it."""

    folder: Path
    kind: str
    meta: dict[str, Any]
    digest: str


def commit_folder(folder: Path, kind: str, write: Callable[[Path], Mapping[str, Any]]) -> Commit:
    """Commit what `write` puts into a temporary folder under the name `folder`; return it.

    `write` gets the temporary folder and returns the commit's meta, as JSON. If `folder` is there already,
    somebody was first: theirs is verified and returned.

    Raises:
        StoreError: the disk refused; nothing is left under `folder`.
    """
    if folder.exists():
        return open_commit(folder, kind)
    with explain_refusals(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        temporary = folder.parent / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}"
        temporary.mkdir(mode=0o700)
        try:
            meta = dict(write(temporary))
            files = {name: _sync_and_describe(temporary / name) for name in _list_files(temporary)}
            for inner in sorted(path for path in temporary.rglob("*") if path.is_dir()):
                sync_folder(inner)
            manifest = {"schema": SCHEMA, "kind": kind, "meta": meta, "files": files}
            write_and_sync(temporary / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
            sync_folder(temporary)
            temporary.rename(folder)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if folder.is_dir() and isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return open_commit(folder, kind)
            raise
        sync_folder(folder.parent)
    return Commit(folder, kind, meta, _digest(files))


def open_commit(folder: Path, kind: str | None = None, *, verify: bool = True) -> Commit:
    """Return a committed folder, all its files checked against the manifest before anybody parses them.

    Raises:
        StoreError: there is no such commit.
        CorruptError: a file is missing, of another size, or has another SHA-256.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        files, meta, found = manifest["files"], manifest["meta"], manifest["kind"]
        schema = manifest["schema"]
    except FileNotFoundError:
        raise StoreError(f"{folder} is no committed folder: it has no {MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptError(f"{folder / MANIFEST} cannot be read ({error}); remove {folder}") from None
    if schema != SCHEMA:
        raise StoreError(f"{folder} was written by another version of LightLM (schema {schema}, wanted {SCHEMA})")
    if kind is not None and found != kind:
        raise StoreError(f"{folder} holds a {found}, wanted a {kind}")
    if verify:
        for name, described in files.items():
            _verify(_confine(folder, name), described)
    return Commit(folder, found, meta, _digest(files))


def write_file(path: Path, content: bytes) -> None:
    """Put `content` under `path`, durably: a reader sees the old content or the new, never a mix.

    Raises:
        StoreError: the disk refused; the old content stands.
    """
    with explain_refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}"
        try:
            write_and_sync(temporary, content)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def publish_file(temporary: Path, path: Path) -> None:
    """Give a finished file its name, durably; for files that another library writes (a database)."""
    with explain_refusals(path):
        handle = os.open(temporary, os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        temporary.replace(path)
        sync_folder(path.parent)


def remove_folder(folder: Path) -> None:
    """Remove a committed folder: first out of its name, then its files; a crash in between leaves only trash."""
    trash = folder.parent / f"{TRASH}{os.getpid()}-{secrets.token_hex(4)}"
    with explain_refusals(folder):
        try:
            folder.rename(trash)
        except FileNotFoundError:
            return
        sync_folder(folder.parent)
    shutil.rmtree(trash, ignore_errors=True)


def write_and_sync(path: Path, content: bytes) -> None:
    """Create `path` with `content` and wait until the disk has it."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the folder's names. Windows cannot, and does not need to for NTFS's journal."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def explain_refusals(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into one sentence with the path and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(_nearest(path)).free
            raise StoreError(
                f"the disk is full: {path} could not be written, {free / 1e6:,.0f} MB are free; free some space "
                "(`lightlm store prune` drops what can be made again) and run the same command again"
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StoreError(
                f"{path} cannot be written ({error.strerror}); make it writable or give another LIGHTLM_HOME"
            ) from None
        raise StoreError(f"{path} could not be written: {error.strerror or error}") from None


def _list_files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _sync_and_describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return {"bytes": path.stat().st_size, "sha256": hash_file(path)}


def _verify(path: Path, described: Mapping[str, Any]) -> None:
    try:
        size = path.stat().st_size
    except OSError:
        raise CorruptError(f"{path} is missing; remove {path.parent} and run again, it is made anew") from None
    if size != described["bytes"]:
        raise CorruptError(
            f"{path} has {size} bytes, its manifest says {described['bytes']}; remove {path.parent} and run again"
        )
    actual = hash_file(path)
    if actual != described["sha256"]:
        raise CorruptError(
            f"{path} has SHA-256 {actual[:16]}..., its manifest says {described['sha256'][:16]}...; "
            f"remove {path.parent} and run again"
        )


def _confine(folder: Path, name: str) -> Path:
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts or path.is_symlink():
        raise CorruptError(f"{folder / MANIFEST} names a file outside its folder: {name!r}; remove {folder}")
    return path


def _digest(files: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _sweep(parent: Path) -> None:
    """Remove what dead writers left in `parent`."""
    for path in parent.iterdir():
        if path.name.startswith((TEMPORARY, TRASH)) and not _is_alive(path.name):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_alive(name: str) -> bool:
    try:
        pid = int(name.removeprefix(TEMPORARY).removeprefix(TRASH).partition("-")[0])
    except ValueError:
        return False
    if pid == os.getpid():
        return True
    import psutil

    return psutil.pid_exists(pid)


def _nearest(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
