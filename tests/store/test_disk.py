"""Tests of what is asked of a disk, and of its refusals in one sentence."""

import errno
import hashlib
import io
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightlm.errors import InputError, StoreError
from lightlm.store import disk
from lightlm.store.disk import (
    describe_refusal,
    explain_refusals,
    explain_writer,
    hash_file,
    list_tree,
    make_folder,
    sync_file,
    sync_folder,
    sync_written,
    time_sync,
    write_and_sync,
)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "the disk is full: .* MB are free; free some space .*lightlm store prune"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EROFS, "make it writable or give another LIGHTLM_HOME"),
        (errno.EACCES, "make it writable or give another LIGHTLM_HOME"),
        (errno.EIO, "look after that disk or give a LIGHTLM_HOME on another"),
        (errno.ENOTDIR, "check that path, or give another"),
    ],
)
def test_a_refusal_says_the_path_and_what_to_do(tmp_path: Path, code: int, words: str) -> None:
    path = tmp_path / "not" / "there"
    with pytest.raises(StoreError, match=words) as caught, explain_refusals(path):
        raise OSError(code, os.strerror(code))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("I/O error: No space left on device (os error 28)"),
        Exception("Error: Os { code: 28, kind: StorageFull, message: ... }"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_a_full_disk_inside_a_library_is_said_as_ours(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(StoreError, match="the disk is full"),
        explain_writer(tmp_path / "one", tmp_path),
    ):
        raise error


def test_a_broken_disk_inside_a_library_is_told_in_the_systems_words(tmp_path: Path) -> None:
    words = re.escape(f"({os.strerror(errno.EIO)})")
    with pytest.raises(StoreError, match=words), explain_writer(tmp_path / "one", tmp_path):
        raise RuntimeError(f"I/O error (os error {errno.EIO})")


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "x"),
        ValueError("os error"),
        InputError("no such data"),
    ],
)
def test_what_is_not_the_disks_goes_through_as_it_is(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, explain_writer(tmp_path / "one", tmp_path):
        raise error
    assert caught.value is error


def test_another_files_permission_is_not_taken_for_ours(tmp_path: Path) -> None:
    theirs = PermissionError(errno.EACCES, "denied", "/somewhere/else")
    with pytest.raises(PermissionError), explain_writer(tmp_path / "one", tmp_path):
        raise theirs
    ours = PermissionError(errno.EACCES, "denied", str(tmp_path / "file"))
    with (
        pytest.raises(StoreError, match="make it writable"),
        explain_writer(tmp_path / "one", tmp_path),
    ):
        raise ours


def test_folders_are_made_down_to_the_last(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b" / "c")
    make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    write_and_sync(tmp_path / "file", b"first")
    with pytest.raises(FileExistsError):
        write_and_sync(tmp_path / "file", b"second")


def test_a_file_system_that_cannot_sync_folders_is_good_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(disk.os, "fsync", refuse)
    code = errno.EINVAL
    sync_folder(tmp_path)
    code = errno.EIO
    with pytest.raises(OSError, match="no"):
        sync_folder(tmp_path)


def test_a_tree_is_listed_without_following_links(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "b" / "file").write_text("x")
    (top / "a" / "up").symlink_to(top)
    assert [path.relative_to(top).as_posix() for path in list_tree(top)] == [
        "a",
        "a/b",
        "a/b/file",
        "a/up",
    ]


def test_a_folder_that_cannot_be_listed_is_an_error_and_not_empty(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list_tree(tmp_path / "missing")


def refusal(error: OSError, path: Path) -> str:
    return str(describe_refusal(error, path))


def test_each_refusal_is_one_sentence_word_for_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    path = tmp_path / "x"
    free = shutil.disk_usage(tmp_path)._replace(free=3_000_000_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    assert refusal(OSError(errno.ENOSPC, "full"), path) == (
        f"the disk is full: {path} could not be written, 3,000,000 MB are free; free some space "
        "(`lightlm store` lists "
        "what is there, `lightlm store prune` drops what can be made again) and run the same "
        "command again"
    )

    after = "look after that disk or give a LIGHTLM_HOME on another, and run the same command again"
    assert (
        refusal(OSError(errno.EIO, "broken"), path)
        == f"{path} could not be written (broken); {after}"
    )
    assert (
        refusal(OSError("only words"), path) == f"{path} could not be written (only words); {after}"
    )

    assert refusal(OSError(), path) == f"{path} could not be written (OSError); {after}"


@pytest.mark.parametrize(("system", "wanted"), [("Darwin", [51]), ("Linux", []), (None, [])])
def test_a_mac_is_asked_for_more_than_fsync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str | None, wanted: list[int]
) -> None:
    fcntl = pytest.importorskip("fcntl")
    asked: list[tuple[int, int]] = []
    with (tmp_path / "file").open("wb") as file, monkeypatch.context() as patch:
        patch.setattr(fcntl, "fcntl", lambda handle, command: asked.append((handle, command)))
        if system is None:
            patch.delattr(os, "uname")
        else:
            patch.setattr(os, "uname", lambda: SimpleNamespace(sysname=system))
        sync_file(file.fileno())
        assert asked == [(file.fileno(), command) for command in wanted]
        patch.setattr(fcntl, "F_FULLFSYNC", 99, raising=False)
        asked.clear()
        sync_file(file.fileno())
        assert [command for _, command in asked] == [99] * len(wanted)


@pytest.mark.parametrize(("system", "mode"), [("nt", "r+b"), ("posix", "rb")])
def test_what_another_wrote_is_opened_as_the_system_syncs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, mode: str
) -> None:
    path = tmp_path / "file"
    modes = []
    open_path = Path.open
    path.write_bytes(b"x")

    def note(self: Path, mode: str) -> Any:
        modes.append(mode)
        return open_path(self, mode)

    with monkeypatch.context() as patch:
        patch.setattr(os, "name", system)
        patch.setattr(Path, "open", note)
        sync_written(path)

    assert modes == [mode]
    assert path.read_bytes() == b"x"


def test_a_file_is_hashed_a_block_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    sizes = []
    content = bytes(range(256)) * 10
    path.write_bytes(content)

    class Reader(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            sizes.append(size)
            return super().read(size)

    monkeypatch.setattr(disk, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(Path, "open", lambda self, mode: Reader(content))
    assert hash_file(path) == hashlib.sha256(content).hexdigest()
    assert sizes == [1000] * 4


def test_too_many_open_files_are_no_fault_of_the_disk(tmp_path: Path) -> None:
    for code in (errno.EMFILE, errno.ENFILE):
        said = refusal(OSError(code, "Too many open files"), tmp_path / "x")
        assert "too many open files, the " in said
        assert (
            "files that this process may open (ulimit -n) are in use; allow more with `ulimit -n "
            in said
        )
        assert "disk" not in said


def test_the_time_of_a_confirmed_write_is_the_shorter_of_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirmed: list[int] = []
    clock = iter([100.0, 100.5, 101.0, 101.25])
    monkeypatch.setattr(disk, "sync_file", confirmed.append)
    monkeypatch.setattr(disk, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    folder = tmp_path / "runs"
    folder.mkdir()
    assert time_sync(folder) == 0.25
    assert len(confirmed) == 2
    assert list(folder.iterdir()) == []
