"""Tests of the kernel's locks: exclusive, named in the message, free on the holder's death."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightlm.errors import BusyError
from lightlm.process_identity import describe_own_process
from lightlm.store import lock
from lightlm.store.lock import hold_lock, try_lock

HOLD = """
import sys, time
from pathlib import Path
from lightlm.store.lock import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def start_holder(path: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def holder(tmp_path: Path) -> "Iterator[subprocess.Popen[str]]":
    process = start_holder(tmp_path / "lock")
    yield process
    process.kill()
    process.wait()


def test_a_held_lock_is_refused_with_the_holders_number(
    tmp_path: Path, holder: "subprocess.Popen[str]"
) -> None:
    with (
        pytest.raises(BusyError, match=f"process {holder.pid} holds"),
        hold_lock(tmp_path / "lock", wait=False),
    ):
        pass


def test_a_lock_is_free_when_its_holder_is_killed(tmp_path: Path) -> None:
    holder = start_holder(tmp_path / "lock")
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with hold_lock(tmp_path / "lock", wait=False):
        assert (tmp_path / "lock").read_text() == f"{describe_own_process()}\n"


def test_a_waiter_is_told_and_takes_over(tmp_path: Path) -> None:
    holder = start_holder(tmp_path / "lock")
    said: list[str] = []

    def report(message: str) -> None:
        said.append(message)
        holder.kill()

    with hold_lock(tmp_path / "lock", report=report):
        pass
    holder.wait()
    assert len(said) == 1
    assert str(holder.pid) in said[0]


def test_a_waiter_is_told_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "REPORT_SECONDS", 0.0)
    holder = start_holder(tmp_path / "lock")
    said: list[str] = []

    def report(message: str) -> None:
        said.append(message)
        if len(said) == 3:
            holder.kill()

    with hold_lock(tmp_path / "lock", report=report):
        pass
    holder.wait()
    assert said[1].startswith(f"still waiting for process {holder.pid}, for ")


@pytest.mark.parametrize(
    ("written", "said"), [(b"", "?"), (b"  \n", "?"), (b"12\xff", "12\ufffd"), (b"7\n", "7")]
)
def test_a_holder_that_has_not_written_its_number_is_said_all_the_same(
    tmp_path: Path, written: bytes, said: str
) -> None:
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "lock").write_bytes(written)
    with (tmp_path / "lock").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BusyError) as caught, hold_lock(tmp_path / "lock", wait=False):
            pass
    assert str(caught.value).startswith(f"process {said} holds {tmp_path / 'lock'};")


@pytest.mark.usefixtures("holder")
def test_where_locked_files_cannot_be_read_the_holder_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pread")
    with (
        pytest.raises(BusyError, match=r"^process \? holds"),
        hold_lock(tmp_path / "lock", wait=False),
    ):
        pass


def test_on_windows_the_first_byte_of_the_file_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lock").touch()
    asked: list[tuple[int, int, int]] = []
    refusals = [OSError(errno.EACCES, "Permission denied")]

    def locking(handle: int, mode: int, num_bytes: int) -> None:
        asked.append((handle, mode, num_bytes))
        if refusals:
            raise refusals.pop()

    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(LK_NBLCK=2, locking=locking))
    with (tmp_path / "lock").open("rb") as file, monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        assert [try_lock(file.fileno()), try_lock(file.fileno())] == [False, True]
        assert asked == [(file.fileno(), 2, 1)] * 2
