"""Tests of who uses the store: counted until they end, and alone is alone."""

import subprocess
import sys
from pathlib import Path

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
    process = subprocess.Popen([sys.executable, "-c", USE, str(home)], stdout=subprocess.PIPE, text=True)
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


def test_a_process_that_turns_to_another_home_lets_go_of_the_first(home: Path, tmp_path: Path) -> None:
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
    handles = Path("/proc/self/fd")
    if handles.is_dir():
        assert [handle.resolve() for handle in handles.iterdir()].count((home / LOCK).resolve()) == 1
    assert (home / LOCK).stat().st_mode & 0o777 == 0o600


def test_a_home_that_is_not_there_stops_nobody(tmp_path: Path) -> None:
    use_store(tmp_path / "missing")
    with claim_store(tmp_path / "missing") as is_alone:
        assert is_alone
    assert not (tmp_path / "missing").exists()
