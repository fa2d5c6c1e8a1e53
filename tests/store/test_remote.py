"""Tests of folders at URLs: ranges, tries, and manifests that are whole."""

import re
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from lightlm.errors import CorruptError, StoreError
from lightlm.store import remote
from lightlm.store.commit import MANIFEST, commit_folder
from lightlm.store.remote import RemoteFolder
from lightlm.store.shared import Shareable

NOTES = Shareable(re.compile(r"\w+\.txt"))


def test_what_is_put_is_read_whole_or_by_ranges(tmp_path: Path) -> None:
    folder = RemoteFolder(f"memory://remote-{tmp_path.name}/a/b")
    path = tmp_path / "note.txt"
    path.write_bytes(b"0123456789")
    entry = folder.put(path)
    assert folder.read(entry["sha256"], 3, 6) == b"345"
    assert folder.find_size(entry["sha256"]) == 10 and folder.find_size("other") is None
    assert [file[:2] for file in folder.list_files()] == [(entry["sha256"], 10)]
    with pytest.raises(FileNotFoundError):
        folder.read("other")
    with pytest.raises(StoreError, match="7 bytes came instead of 17"):
        RemoteFolder(folder.url, ()).read(entry["sha256"], 3, 20)


def test_a_folder_written_there_is_a_commit_here(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "note.txt").write_bytes(b"text")
    there = RemoteFolder((tmp_path / "there").as_uri())
    digest = there.put_manifest(
        "notes", {"a": 1}, {"note.txt": there.put(source / "note.txt")}, tmp_path
    )

    found = there.read_manifest("notes", NOTES)
    assert found is not None and found[1] == digest

    def bring(scratch: Path) -> dict:
        there.download(found[0]["files"], scratch)
        return found[0]["meta"]

    commit = commit_folder(tmp_path / "here", "notes", bring)
    assert commit.meta == {"a": 1} and (tmp_path / "here/note.txt").read_bytes() == b"text"
    assert (tmp_path / "here" / MANIFEST).read_bytes() == there.read(MANIFEST)


def test_a_damaged_manifest_or_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_bytes(b"text")
    there = RemoteFolder((tmp_path / "there").as_uri())
    files = {"note.txt": there.put(tmp_path / "note.txt")}
    there.put_manifest("notes", {}, files, tmp_path)
    with pytest.raises(CorruptError, match="wanted letters"):
        there.read_manifest("letters", NOTES)

    (tmp_path / "there" / files["note.txt"]["sha256"]).write_bytes(b"TEXT")
    with pytest.raises(CorruptError, match="SHA-256"):
        there.download(files, tmp_path)
    manifest = tmp_path / "there" / MANIFEST
    manifest.write_bytes(manifest.read_bytes().replace(b"note", b"nota"))
    with pytest.raises(CorruptError, match=r"there: manifest.json has SHA-256"):
        there.read_manifest("notes", NOTES)


class Shaky(MemoryFileSystem):
    """A file system that fails at first."""

    cachable = False
    failures = 0

    def open(self, *arguments: Any, **values: Any) -> Any:
        if self.failures:
            self.failures -= 1
            raise ConnectionResetError("the connection broke")
        return super().open(*arguments, **values)


def test_what_fails_is_asked_for_again_and_then_told(monkeypatch: pytest.MonkeyPatch) -> None:
    filesystem = Shaky()
    filesystem.pipe_file("/shaky/x", b"0123")
    monkeypatch.setattr(remote, "connect", lambda url: (filesystem, "/shaky"))
    folder = RemoteFolder("memory://shaky", (0.0, 0.0))
    filesystem.failures = 2
    assert folder.read("x", 1, 3) == b"12"
    filesystem.failures = 3
    with pytest.raises(StoreError, match=r"memory://shaky/x failed.*the connection broke"):
        folder.read("x", 1, 3)


def test_a_scheme_without_its_package_is_told_with_it() -> None:
    with pytest.raises(StoreError, match="adlfs"):
        RemoteFolder("abfs://team/x").read("y")
