"""Tests of who uses the store: counted until they end, and alone is alone."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightlm.store.use import LOCK, claim_store, use_store

USE = """
import sys, time
from pathlib import Path
from lightlm.store.use import use_store
use_store(Path(sys.argv[1]))
print("used", flush=True)
time.sleep(60)
"""


def start_user(home: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", USE, str(home)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "used\n"
    return process


def test_a_store_is_claimed_only_when_its_last_user_is_gone(home: Path) -> None:
    users = [start_user(home), start_user(home)]
    for user in users:
        with claim_store(home) as is_alone:
            assert not is_alone
        user.kill()
        user.wait()
    with claim_store(home) as is_alone:
        assert is_alone


def test_a_process_that_turns_to_another_home_lets_go_of_the_first(
    home: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    use_store(home)
    use_store(home)
    with claim_store(home) as is_alone:
        assert not is_alone
    use_store(tmp_path / "other")
    with claim_store(home) as is_alone:
        assert is_alone


def test_using_a_store_twice_opens_its_lock_once_and_the_lock_is_its_owners(home: Path) -> None:
    use_store(home)
    use_store(home)
    assert (home / LOCK).stat().st_mode & 0o777 == 0o600
    assert count_handles(home / LOCK) == 1


def test_a_home_that_is_not_there_stops_nobody(tmp_path: Path) -> None:
    use_store(tmp_path / "missing")
    with claim_store(tmp_path / "missing") as is_alone:
        assert is_alone
    assert not (tmp_path / "missing").exists()


def count_handles(path: Path) -> int:
    """Return how many of this process's open files are `path`."""
    handles = Path("/proc/self/fd")
    if not handles.is_dir():
        pytest.skip("the system does not list a process's open files")
    return [handle.resolve() for handle in handles.iterdir()].count(path.resolve())


def test_a_claim_makes_a_lock_that_is_its_owners_and_leaves_nothing_open(home: Path) -> None:
    with claim_store(home) as is_alone:
        assert is_alone
        assert count_handles(home / LOCK) == 1
        assert (home / LOCK).stat().st_mode & 0o777 == 0o600
    assert count_handles(home / LOCK) == 0


def test_nobody_begins_to_use_what_is_claimed(home: Path) -> None:
    with claim_store(home):
        user = subprocess.Popen(
            [sys.executable, "-c", USE, str(home)], stdout=subprocess.PIPE, text=True
        )
        with pytest.raises(subprocess.TimeoutExpired):
            user.wait(0.5)
    assert user.stdout is not None
    assert user.stdout.readline() == "used\n"
    user.kill()
    user.wait()
    user.stdout.close()


def test_a_lock_that_cannot_be_opened_stops_nobody(home: Path, tmp_path: Path) -> None:
    (home / LOCK).mkdir()
    use_store(home)
    (tmp_path / "other").mkdir()
    use_store(tmp_path / "other")
    with claim_store(tmp_path / "other") as is_alone:
        assert not is_alone


def test_a_disk_without_locks_counts_nobody_and_leaves_nothing_open(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        use_store(home)

    assert count_handles(home / LOCK) == 0
    with claim_store(home) as is_alone:
        assert is_alone
    use_store(home)  # once there are locks, it counts
    assert count_handles(home / LOCK) == 1


def test_windows_locks_no_store(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        use_store(home)
        with claim_store(home) as is_alone:
            assert is_alone

    assert not (home / LOCK).exists()
    user = start_user(home)
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        with claim_store(home) as is_alone:
            assert is_alone

    user.kill()
    user.wait()
