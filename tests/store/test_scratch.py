"""Tests of scratch folders: gone with their writer, left alone while it lives, and never a way out
of their folder.
"""

import errno
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lightlm.errors import StoreError
from lightlm.store.commit import commit_folder
from lightlm.store.scratch import (
    ABANDONED_SECONDS,
    TEMPORARY,
    TRASH,
    name_temporary,
    name_trash,
    scratch_folder,
    sweep,
)

HOLD = """
import sys, time
from pathlib import Path
from lightlm.store.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    print("held", flush=True)
    time.sleep(60)
"""


def age(path: Path) -> None:
    """Make a path look abandoned."""
    then = time.time() - ABANDONED_SECONDS - 10
    os.utime(path, (then, then), follow_symlinks=False)


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    (tmp_path / "parent").mkdir()
    return tmp_path / "parent"


def test_a_scratch_folder_is_private_and_gone_when_left(parent: Path) -> None:
    with scratch_folder(parent) as folder:
        assert folder.parent == parent
        assert folder.name.startswith(TEMPORARY)
        assert os.name == "nt" or folder.stat().st_mode & 0o777 == 0o700
    assert list(parent.iterdir()) == []


def test_a_scratch_folder_that_was_renamed_stays(parent: Path) -> None:
    with scratch_folder(parent) as folder:
        folder.rename(parent / "kept")
    assert [path.name for path in parent.iterdir()] == ["kept"]


def test_what_a_living_writer_fills_is_not_swept_and_what_a_dead_one_left_is(parent: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(parent)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    sweep(parent)
    assert [path.name for folder in parent.iterdir() for path in folder.iterdir()] == ["half"]
    process.kill()
    process.wait()
    process.stdout.close()
    sweep(parent)
    assert list(parent.iterdir()) == []


def test_trash_goes_whoever_made_it(parent: Path) -> None:
    (name_trash(parent) / "inner").mkdir(parents=True)
    name_trash(parent).write_text("x")
    (parent / "kept").mkdir()
    sweep(parent)
    assert [path.name for path in parent.iterdir()] == ["kept"]


def test_a_temporary_file_goes_when_it_is_a_day_old(parent: Path) -> None:
    young = name_temporary(parent)
    old = name_temporary(parent)
    young.write_text("x")
    old.write_text("x")
    age(old)
    sweep(parent)
    assert list(parent.iterdir()) == [young]


def test_a_persons_folder_next_to_ours_is_never_swept(parent: Path) -> None:
    names = [".tmp-notes", ".trash-2025", ".tmp-1-abc", ".tmp-0123456789abcdef.bak", ".trash-"]
    for name in names:
        (parent / name).mkdir()
        (parent / name / "precious").write_text("x")
        age(parent / name)
    name_trash(parent).mkdir()
    sweep(parent)
    assert sorted(path.name for path in parent.iterdir()) == sorted(names)
    assert all((parent / name / "precious").exists() for name in names)


def test_a_link_to_nowhere_is_nobodys_leftover(parent: Path) -> None:
    link = name_temporary(parent)
    link.symlink_to(parent / "nowhere")
    sweep(parent)
    assert link.is_symlink()


@pytest.mark.parametrize("prefix", [TEMPORARY, TRASH])
def test_a_link_does_not_lead_the_sweep_outside(tmp_path: Path, parent: Path, prefix: str) -> None:
    outside = tmp_path / "outside"
    (outside / "inner").mkdir(parents=True)
    (outside / "precious").write_text("x")
    for digit, target in (("0", outside), ("1", outside / "precious")):
        (parent / f"{prefix}{digit * 16}").symlink_to(target)
        age(parent / f"{prefix}{digit * 16}")
    age(outside)
    age(outside / "precious")
    sweep(parent)
    assert (outside / "precious").exists()
    assert (outside / "inner").exists()


def count_handles(folder: Path) -> int:
    """Return how many of this process's open files lie in `folder`."""
    handles = Path("/proc/self/fd")
    if not handles.is_dir():
        pytest.skip("the system does not list a process's open files")
    return sum(
        str(handle.resolve()).startswith(f"{folder}{os.sep}") for handle in handles.iterdir()
    )


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Gives what lets a function of the system fail with each of `errors` in turn, and
    then work.
    """

    def let_fail(module: Any, name: str, *errors: OSError) -> None:
        function = getattr(module, name)
        left = list(errors)

        def fail(*arguments: Any, **options: Any) -> Any:
            if left:
                raise left.pop(0)
            return function(*arguments, **options)

        monkeypatch.setattr(module, name, fail)

    yield let_fail
    monkeypatch.undo()


def test_names_are_long_chance_behind_what_they_are(parent: Path) -> None:
    for prefix, names in ((TEMPORARY, name_temporary), (TRASH, name_trash)):
        one = names(parent)
        other = names(parent)
        assert one != other
        assert one.parent == parent
        assert re.fullmatch(re.escape(prefix) + "[0-9a-f]{16}", one.name)


def test_without_a_parent_the_error_says_which_folder_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreError, match=re.escape(str(tmp_path / "missing"))),
        scratch_folder(tmp_path / "missing"),
    ):
        pass


def test_a_scratch_folder_is_locked_while_it_is_used_and_closed_after(parent: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with scratch_folder(parent) as folder:
        handle = os.open(folder, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(handle)
    assert count_handles(parent) == 0


def test_a_folder_that_a_sweeper_took_before_its_lock_is_made_anew(
    parent: Path, failing: Callable[..., None]
) -> None:
    failing(
        os, "open", FileNotFoundError(errno.ENOENT, "gone"), FileNotFoundError(errno.ENOENT, "gone")
    )
    with scratch_folder(parent) as folder:
        assert folder.is_dir()
        assert len(list(parent.iterdir())) == 3  # two that a sweeper would have taken


def test_a_folder_whose_lock_a_sweeper_holds_is_not_used(
    parent: Path, failing: Callable[..., None]
) -> None:
    fcntl = pytest.importorskip("fcntl")
    failing(fcntl, "flock", BlockingIOError(errno.EWOULDBLOCK, "held"))
    with scratch_folder(parent) as folder:
        refused = [path for path in parent.iterdir() if path != folder]
        assert len(refused) == 1
        assert count_handles(parent) == 1  # of the folder that is used


@pytest.mark.parametrize("refusing", ["open", "flock"])
def test_where_folders_cannot_be_locked_they_are_used_all_the_same(
    parent: Path, failing: Callable[..., None], refusing: str
) -> None:
    fcntl = pytest.importorskip("fcntl")
    module, error = {
        "open": (os, PermissionError(errno.EACCES, "no")),
        "flock": (fcntl, OSError(errno.ENOLCK, "no")),
    }[refusing]
    failing(module, refusing, error)
    with scratch_folder(parent) as folder:
        (folder / "file").write_text("x")
        assert count_handles(parent) == 0
        assert list(parent.iterdir()) == [folder]
    assert list(parent.iterdir()) == []


@pytest.mark.parametrize("refusing", ["open", "flock"])
def test_where_folders_cannot_be_locked_age_tells_who_is_gone(
    parent: Path, monkeypatch: pytest.MonkeyPatch, refusing: str
) -> None:
    fcntl = pytest.importorskip("fcntl")
    young = name_temporary(parent)
    old = name_temporary(parent)
    young.mkdir()
    old.mkdir()
    age(old)
    os_open = os.open

    def refuse(path: Any, flags: int, *arguments: Any, **options: Any) -> Any:
        if refusing == "open" and not flags & os.O_NOFOLLOW:  # another's than the look at a lock
            return os_open(path, flags, *arguments, **options)
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr({"open": os, "flock": fcntl}[refusing], refusing, refuse)
    sweep(parent)
    assert list(parent.iterdir()) == [young]
    assert count_handles(parent) == 0


def test_what_another_sweeper_takes_first_is_no_error(
    parent: Path, failing: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = name_trash(parent)
    file = name_trash(parent)
    temporary = name_temporary(parent)
    (folder / "inner").mkdir(parents=True)
    temporary.mkdir()
    file.write_text("x")
    found = sorted(parent.iterdir())
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(found))
    file.unlink()
    shutil.rmtree(temporary)
    failing(os, "scandir", PermissionError(errno.EACCES, "no"))
    sweep(parent)
    # it could not be listed, and the next sweep takes it
    assert folder.is_dir()


def test_what_vanishes_while_its_age_is_asked_is_left(
    parent: Path, failing: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = name_temporary(parent)
    folder.mkdir()
    age(folder)
    failing(os, "open", PermissionError(errno.EACCES, "no"))
    failing(os, "stat", *[FileNotFoundError(errno.ENOENT, "gone")] * 9)
    sweep(parent)
    monkeypatch.undo()
    assert folder.exists()


def test_a_swept_folder_leaves_nothing_open(parent: Path) -> None:
    name_temporary(parent).mkdir()
    with scratch_folder(parent):
        sweep(parent)
        assert count_handles(parent) == 1
    assert list(parent.iterdir()) == []


def test_threads_that_commit_next_to_each_other_do_not_sweep_what_another_has_just_made(
    tmp_path: Path,
) -> None:
    def build(scratch: Path) -> dict[str, int]:
        (scratch / "content").write_bytes(b"whole")
        return {}

    def commit(number: int) -> bytes:
        made = commit_folder(tmp_path / f"part-{number}", "parts", build)
        return (made.folder / "content").read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(commit, range(300))) == {b"whole"}
