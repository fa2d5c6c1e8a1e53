"""Durable commits: a folder is there, complete and verifiable, or it is not there at all.

The order makes it so: write into a scratch folder, fsync each file, manifest last, fsync, rename,
fsync the parent. Committed folders are never changed. After a power loss a disk may have any subset
of the writes since its last fsync; tests/faults/test_store_power_loss.py goes through them.
"""

import errno
import hashlib
import json
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightlm.errors import CorruptError, StoreError
from lightlm.json_object import JsonObject
from lightlm.store.disk import (
    DAMAGED,
    EXHAUSTED,
    describe_exhaustion,
    explain_refusals,
    explain_writer,
    hash_file,
    list_tree,
    make_folder,
    sync_folder,
    sync_written,
    write_and_sync,
)
from lightlm.store.scratch import TEMPORARY as TEMPORARY
from lightlm.store.scratch import name_temporary, name_trash, scratch_folder, sweep

MANIFEST = "manifest.json"

SCHEMA = 3
"""Version of the manifest's format; since 3 it has a digest of its own content."""


@dataclass(frozen=True)
class Commit:
    """A committed folder. `digest` is the SHA-256 of its table of files; `meta` what its writer
    said of it.
    """

    folder: Path
    kind: str
    meta: JsonObject
    digest: str


def commit_folder(folder: Path, kind: str, write: Callable[[Path], Mapping[str, Any]]) -> Commit:
    """Commit what `write` puts into a scratch folder under the name `folder`; return it.

    `write` gets the scratch folder and returns the commit's meta, as JSON. If `folder` is there
    already, another process was first: its commit is verified and returned.

    Raises:
        StoreError: the disk refused; nothing is left under `folder`. What else `write` raises goes
            through.
    """
    with explain_refusals(folder):
        is_there = folder.exists()
    if is_there:
        return _adopt(folder, kind)

    with explain_refusals(folder):
        make_folder(folder.parent)
        sweep(folder.parent)

    with scratch_folder(folder.parent) as scratch:
        with explain_writer(folder, scratch):
            meta = dict(write(scratch))
        with explain_refusals(folder):
            manifest = _seal(scratch, kind, meta)
            try:
                scratch.rename(folder)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and folder.is_dir():
                    return _adopt(folder, kind)
                raise
            try:
                sync_folder(folder.parent)
            except OSError:
                # Not known to be durable, so not there: a later try must not take it for a commit.
                with suppress(OSError):
                    folder.rename(scratch)
                raise

    return Commit(folder, kind, manifest["meta"], _digest(manifest["files"]))


def open_commit(folder: Path, kind: str | None = None, *, verify: bool = True) -> Commit:
    """Return a committed folder, all its files checked against the manifest before anybody parses
    them.

    Raises:
        StoreError: there is no such commit, or it cannot be read at present.
        CorruptError: the manifest is damaged, or of another version of LightLM; a file is missing,
            of another size, has another SHA-256, or is one that the manifest does not name.
    """
    manifest = _read_manifest(folder)
    meta = manifest["meta"]
    found = manifest["kind"]
    files = manifest["files"]
    if kind is not None and found != kind:
        raise StoreError(f"{folder} holds a {found}, wanted a {kind}")

    for name, described in files.items():
        with _explain_damage(folder, folder / name):
            path = _confine(folder, name)
        if verify:
            _verify(folder, path, described)

    if verify:
        with _explain_damage(folder, folder):
            _refuse_strangers(folder, files)

    return Commit(folder, found, meta, _digest(files))


def copy_commit(source: Path, folder: Path, kind: str) -> Commit:
    """Commit the verified files of `source` under the name `folder`; return it.

    Raises:
        StoreError: the disk refused.
        CorruptError: `source` is damaged.
    """

    def copy(scratch: Path) -> Mapping[str, Any]:
        meta = open_commit(source, kind).meta
        shutil.copytree(
            source, scratch, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", MANIFEST)
        )
        return meta

    return commit_folder(folder, kind, copy)


def find_commit(folder: Path, kind: str) -> Commit | None:
    """Return a committed folder, verified (see open_commit); None where nothing has its name.

    Raises:
        StoreError: it cannot be read at present.
        CorruptError: it is damaged.
    """
    with _explain_damage(folder, folder):
        is_there = folder.exists()
    return open_commit(folder, kind) if is_there else None


def write_file(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Put `content` under `path`, durably: a reader sees the old content or the new, never a mix.

    Without `durable` the disk confirms nothing, and a power loss may leave what no reader takes.

    Raises:
        StoreError: the disk refused; the old content stands, or the new.
    """
    with explain_refusals(path):
        make_folder(path.parent, durable=durable)
        temporary = name_temporary(path.parent)
        try:
            if durable:
                write_and_sync(temporary, content)
            else:
                temporary.write_bytes(content)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            sync_folder(path.parent)


def publish_file(temporary: Path, path: Path) -> None:
    """Give a finished file its name, durably; for files that another library writes (a database).

    Raises:
        StoreError: the disk refused.
    """
    with explain_refusals(path):
        sync_written(temporary)
        temporary.replace(path)
        sync_folder(path.parent)


def remove_folder(folder: Path) -> None:
    """Remove a committed folder: first out of its name, then its files; a crash in between leaves
    only trash.

    Raises:
        StoreError: the disk refused; the folder stands.
    """
    trash = name_trash(folder.parent)
    with explain_refusals(folder):
        try:
            folder.rename(trash)
        except FileNotFoundError:
            return
        sync_folder(folder.parent)
        sweep(folder.parent)


def _adopt(folder: Path, kind: str) -> Commit:
    """Return what another process committed, which may have died before the disk had its name."""
    with explain_refusals(folder):
        sync_folder(folder.parent)
    return open_commit(folder, kind)


def _seal(scratch: Path, kind: str, meta: Mapping[str, Any]) -> JsonObject:
    """Make all of `scratch` durable, its manifest last; return the manifest as a reader will see
    it.
    """
    files = {}
    folders = [scratch]
    for path in list_tree(scratch):
        if path.is_symlink():
            raise StoreError(
                f"{path} is a symbolic link; a commit holds files of its own, so copy what it "
                "points to"
            )
        if path.is_dir():
            folders.append(path)
            continue
        sync_written(path)
        name = path.relative_to(scratch).as_posix()
        files[name] = {"bytes": path.stat().st_size, "sha256": hash_file(path)}

    for folder in folders[1:]:
        sync_folder(folder)
    content = render_manifest(kind, meta, files)
    write_and_sync(scratch / MANIFEST, content)
    sync_folder(scratch)
    return json.loads(content)


def render_manifest(kind: str, meta: Mapping[str, Any], files: Mapping[str, Any]) -> bytes:
    """Return the content of the manifest of these files, whose sizes and SHA-256 are known."""
    manifest = {
        "schema": SCHEMA,
        "kind": kind,
        "meta": json.loads(json.dumps(meta)),
        "files": files,
    }
    return _render(manifest | {"sha256": _seal_digest(manifest)})


def _read_manifest(folder: Path) -> JsonObject:
    """Return the manifest, its own digest and its types checked."""
    path = folder / MANIFEST
    with _explain_damage(folder, path):
        if not folder.exists():
            raise StoreError(f"there is no {folder}")
        content = path.read_bytes()
    return parse_manifest(content, folder)


def parse_manifest(content: bytes, folder: Path) -> JsonObject:
    """Return the manifest of `folder` that `content` is, its own digest and its types checked.

    Raises:
        CorruptError: it is none, is not as it was written, or is another version's.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(content)
        schema, kind, meta, files = (manifest[key] for key in ("schema", "kind", "meta", "files"))
        wanted = manifest.pop("sha256", None)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise CorruptError(f"{path} is no manifest ({error})", _remedy(folder)) from None

    if wanted is None and schema != SCHEMA:
        raise CorruptError(
            f"{folder} was written by another version of LightLM (schema {schema}, wanted {SCHEMA})"
        )

    if content != _render(manifest | {"sha256": wanted}):
        raise CorruptError(f"{path} is not as it was written", _remedy(folder))

    actual = _seal_digest(manifest)
    if actual != wanted:
        raise CorruptError(
            f"{path} has SHA-256 {actual[:16]}..., it says {str(wanted)[:16]}...", _remedy(folder)
        )

    if schema != SCHEMA:
        raise CorruptError(
            f"{folder} was written by another version of LightLM (schema {schema}, wanted {SCHEMA})"
        )

    if not (isinstance(kind, str) and isinstance(meta, dict) and isinstance(files, dict)):
        raise CorruptError(f"{path} has other types than a manifest", _remedy(folder))

    for name, described in files.items():
        if not (isinstance(described, dict) and {"bytes", "sha256"} <= described.keys()):
            raise CorruptError(
                f"{path} does not say the size and SHA-256 of {name!r}", _remedy(folder)
            )

    return manifest


def _verify(folder: Path, path: Path, described: Mapping[str, Any]) -> None:
    with _explain_damage(folder, path):
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise CorruptError(f"{path} is no file", _remedy(folder))
        if found.st_size != described["bytes"]:
            raise CorruptError(
                f"{path} has {found.st_size} bytes, its manifest says {described['bytes']}",
                _remedy(folder),
            )
        actual = hash_file(path)

    if actual != described["sha256"]:
        raise CorruptError(
            f"{path} has SHA-256 {actual[:16]}..., its manifest says "
            f"{str(described['sha256'])[:16]}...",
            _remedy(folder),
        )


@contextmanager
def _explain_damage(folder: Path, path: Path) -> Iterator[None]:
    """Tell a file that is lost or unreadable from one that cannot be read at present, which is not
    to be set aside.
    """
    try:
        yield
    except FileNotFoundError:
        raise CorruptError(f"{path} is missing", _remedy(folder)) from None
    except OSError as error:
        if error.errno in DAMAGED:
            raise CorruptError(
                f"{path} cannot be read any more ({error.strerror})", _remedy(folder)
            ) from None
        if error.errno in EXHAUSTED:
            raise describe_exhaustion(path) from None
        raise StoreError(
            f"{path} cannot be read ({error.strerror}); make it readable and try again"
        ) from None


def _refuse_strangers(folder: Path, files: Mapping[str, Any]) -> None:
    """Refuse files that the manifest does not name: a library reads some by their mere name
    (adapter_config.json).

    Hidden ones are let be: file managers and network disks leave their own.
    """
    for path in list_tree(folder):
        name = path.relative_to(folder).as_posix()
        if (
            path.name.startswith(".")
            or name == MANIFEST
            or name in files
            or (path.is_dir() and not path.is_symlink())
        ):
            continue
        raise CorruptError(
            f"{path} is not in its manifest: it was put there by something else", _remedy(folder)
        )


def _confine(folder: Path, name: str) -> Path:
    path = folder / name
    if "\0" in name or path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()):
        raise CorruptError(
            f"{folder / MANIFEST} names a file outside its folder: {name!r}", f"remove {folder}"
        )
    return path


def _remedy(folder: Path) -> str:
    return f"remove {folder} and run the same command again, which makes it anew"


def _render(manifest: Mapping[str, Any]) -> bytes:
    """Return the only bytes that a manifest can have."""
    return json.dumps(manifest, indent=1, sort_keys=True).encode()


def _seal_digest(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a manifest without its own digest."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _digest(files: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
