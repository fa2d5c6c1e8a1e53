"""Backup of LIGHTLM_HOME in one file, consistent while runs go on, and its restoration.

The order keeps it consistent: the shipping state of each run first, then the databases by SQLite's
own backup, then all other files. Files that a database names were on disk before it, and records
that it lacks are sent again. Committed folders are copied whole or not at all; other files up to
the length that they had when they were opened.
"""

import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO

from lightlm.errors import CorruptError, InputError
from lightlm.json_object import JsonObject
from lightlm.store.commit import MANIFEST
from lightlm.store.disk import BLOCK_BYTES, explain_refusals, make_folder, sync_folder, sync_written
from lightlm.store.home import TEMPORARY_FILES
from lightlm.store.scratch import TEMPORARY, is_scratch, scratch_folder
from lightlm.store.use import use_store

FORMAT = 1
CONTENTS = "lightlm-backup.json"
"""The archive's last member: every file with its size and SHA-256, and the home that it was."""

TOLD = "shipped.json"
"""Name of the shipping state in a run's folder (lightlm/tracking/shipped.py)."""

DATABASE = b"SQLite format 3\0"
LEFT_OUT = (".lock", ".db-wal", ".db-shm", ".db-journal", ".log")
NOT_LASTING = {Path("service/service.json")}
"""Files that describe processes of this machine, and not the home."""


@dataclass(frozen=True)
class Backup:
    """What a backup holds."""

    num_files: int
    num_bytes: int
    home: Path


class _Counted(io.RawIOBase):
    """Reads a file up to a length, and remembers the SHA-256 of what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        block = self.file.read(size)
        self.digest.update(block)
        return block


def write_backup(home: Path, file: Path) -> Backup:
    """Copy `home` into the archive `file`, readable by its owner alone: it holds the service's
    passwords.

    Raises:
        InputError: the file is there, or lies inside of the home.
        StoreError: the disk refused.
    """
    if file.exists():
        raise InputError(f"{file} is there already; give a new name")
    if file.absolute().is_relative_to(home):
        raise InputError(
            f"{file} lies inside of {home}, which is copied; give a name outside of it"
        )

    if not home.is_dir():
        raise InputError(f"there is no {home} to copy; set LIGHTLM_HOME to the home that is meant")

    use_store(home)
    with explain_refusals(file):
        make_folder(file.absolute().parent)
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=file.absolute().parent) as folder:
            unfinished = Path(folder) / file.name
            with unfinished.open("xb") as output, tarfile.open(fileobj=output, mode="w") as archive:
                files = _Archive(archive, home)
                files.add_told()
                files.add_databases(Path(folder))
                files.add_rest()
                files.add_contents()
            unfinished.chmod(0o600)
            sync_written(unfinished)
            unfinished.rename(file)
        sync_folder(file.absolute().parent)

    return Backup(len(files.contents), sum(size for size, _ in files.contents.values()), home)


class _Archive:
    def __init__(self, archive: tarfile.TarFile, home: Path) -> None:
        self.archive = archive
        self.home = home
        self.contents: dict[str, tuple[int, str]] = {}

    def add_told(self) -> None:
        for path in sorted(self.home.glob(f"runs/*/{TOLD}")):
            self.add_files([path])

    def add_databases(self, scratch: Path) -> None:
        for path in self.list_files():
            if path.suffix == ".db" and _is_database(path):
                copy = scratch / "copy.db"
                with (
                    closing(sqlite3.connect(path, timeout=60)) as source,
                    closing(sqlite3.connect(copy)) as target,
                ):
                    source.backup(target)
                with copy.open("rb") as opened:
                    self.add(self.name(path), opened, path.stat().st_mode)
                copy.unlink()

    def add_rest(self) -> None:
        groups: dict[Path, list[Path]] = {}
        for path in self.list_files():
            if self.name(path) not in self.contents:
                groups.setdefault(_find_unit(path, self.home), []).append(path)
        for paths in groups.values():
            self.add_files(paths)

    def list_files(self) -> list[Path]:
        def check(error: OSError) -> None:
            # a run drops its old checkpoints meanwhile
            if not isinstance(error, FileNotFoundError):
                raise error

        walk = os.walk(self.home, onerror=check)
        paths = sorted(Path(folder, name) for folder, _, names in walk for name in names)
        return [path for path in paths if self.is_kept(path)]

    def is_kept(self, path: Path) -> bool:
        inside = path.relative_to(self.home)
        is_unfinished = any(is_scratch(part) for part in inside.parts)
        is_passing = inside in NOT_LASTING or inside.parts[0] == TEMPORARY_FILES
        is_file = path.is_file() and not path.is_symlink()
        return is_file and not is_unfinished and not is_passing and not path.name.endswith(LEFT_OUT)

    def name(self, path: Path) -> str:
        return path.relative_to(self.home).as_posix()

    def add_files(self, paths: list[Path]) -> None:
        """Add files that belong together: all of them, or none when one is gone, as a run drops its
        old checkpoints.
        """
        with ExitStack() as stack:
            try:
                opened = [(path, stack.enter_context(path.open("rb"))) for path in paths]
            except FileNotFoundError:
                return
            for path, file in opened:
                self.add(self.name(path), file, os.fstat(file.fileno()).st_mode)

    def add(self, name: str, file: IO[bytes], mode: int) -> None:
        described = tarfile.TarInfo(name)
        described.size = os.fstat(file.fileno()).st_size
        described.mode = mode & 0o777
        counted = _Counted(file)
        self.archive.addfile(described, counted)  # pyright: ignore[reportArgumentType]
        self.contents[name] = described.size, counted.digest.hexdigest()

    def add_contents(self) -> None:
        listed = {
            "format": FORMAT,
            "home": str(self.home),
            "created_at": datetime.now(UTC).isoformat(),
            "files": self.contents,
        }
        content = json.dumps(listed).encode()
        described = tarfile.TarInfo(CONTENTS)
        described.size = len(content)
        self.archive.addfile(described, io.BytesIO(content))


def _is_database(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(DATABASE)) == DATABASE


def _find_unit(path: Path, home: Path) -> Path:
    """Return the committed folder that a file is part of, or the file itself."""
    for folder in path.parents:
        if folder == home:
            break
        if (folder / MANIFEST).is_file():
            return folder
    return path


def restore_backup(
    file: Path, home: Path, relocate: Callable[[Path, Path, Path], object]
) -> Backup:
    """Make `home`, which has to be empty, of an archive, each file checked against its digest
    before any gets its name.

    `relocate` gets the folder of the files, the home that they were, and the one that they become.

    Raises:
        InputError: the home is not empty, or the file is no backup.
        CorruptError: a file in it is not what was written.
        StoreError: the disk refused.
    """
    if there := sorted(path.name for path in home.iterdir() if not path.name.startswith(".")):
        raise InputError(
            f"{home} is not empty ({', '.join(there[:3])}{', ...' if there[3:] else ''}); a backup "
            f"becomes a home of its own: LIGHTLM_HOME=/new/folder lightlm restore {file}"
        )

    with scratch_folder(home) as scratch:
        files = scratch / "home"
        try:
            with tarfile.open(file, mode="r:") as archive:
                found = dict(_extract(archive, files))
        except (OSError, tarfile.TarError) as error:
            raise InputError(f"{file} cannot be read as a backup of LightLM: {error}") from None
        contents = _read_contents(file, files / CONTENTS)
        _compare(file, found, contents["files"])
        (files / CONTENTS).unlink()
        relocate(files, Path(contents["home"]), home)
        with explain_refusals(home):
            for path in sorted(files.iterdir()):
                path.rename(home / path.name)
            sync_folder(home)

    sizes = [size for size, _ in contents["files"].values()]
    return Backup(len(sizes), sum(sizes), Path(contents["home"]))


def _extract(archive: tarfile.TarFile, folder: Path) -> Iterator[tuple[str, tuple[int, str]]]:
    for member in archive:
        name = PurePosixPath(member.name)
        source = archive.extractfile(member) if member.isreg() else None
        if (
            source is None
            or name.is_absolute()
            or ".." in name.parts
            or "\\" in member.name
            or ":" in name.parts[0]
        ):
            raise tarfile.TarError(f"{member.name!r} is no file of a home")
        path = folder / name
        with explain_refusals(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            counted = _Counted(source)
            with path.open("xb") as target:
                shutil.copyfileobj(counted, target, BLOCK_BYTES)
            path.chmod(member.mode & 0o777 | 0o600)
            sync_written(path)
        yield member.name, (member.size, counted.digest.hexdigest())


def _read_contents(file: Path, path: Path) -> JsonObject:
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        contents = json.loads(path.read_bytes())
        if contents["format"] == FORMAT and isinstance(contents["home"], str):
            contents["files"] = {
                name: (int(size), str(digest)) for name, (size, digest) in contents["files"].items()
            }
            return contents
    raise InputError(
        f"{file} is no whole backup of this LightLM's kind; take another with `lightlm backup FILE`"
    )


def _compare(
    file: Path, found: dict[str, tuple[int, str]], wanted: dict[str, tuple[int, str]]
) -> None:
    found = {name: seen for name, seen in found.items() if name != CONTENTS}
    wrong = sorted(
        name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)
    )
    if wrong:
        raise CorruptError(
            f"{file} is damaged: {wrong[0]} is not what was written ({len(wrong)} of {len(wanted)} "
            "files); take another backup"
        )
