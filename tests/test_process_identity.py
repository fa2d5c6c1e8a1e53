"""The identity of a process: the same while it lives, whatever the clock says, and never again."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lightlm.process_identity import describe_own_process, find_own_age, identify_process


def test_a_process_keeps_its_identity_and_no_other_has_it() -> None:
    mine = identify_process(os.getpid())
    assert mine
    assert identify_process(os.getpid()) == mine
    assert describe_own_process() == f"{os.getpid()} {mine}"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert identify_process(other.pid) not in {None, mine}
        other.communicate(b"\n")


def test_what_has_ended_has_none_not_even_as_a_zombie() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(ended.pid).status() == psutil.STATUS_ZOMBIE
    assert identify_process(ended.pid) is None
    ended.wait()
    assert identify_process(ended.pid) is None


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such file")
def test_where_the_boots_id_is_hidden_a_process_has_an_identity_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("lightlm.process_identity.BOOT", tmp_path / "hidden")
    mine = identify_process(os.getpid())
    assert mine is not None
    assert mine.startswith(":")


@pytest.mark.skipif(sys.platform != "linux", reason="psutil adds the boot's time on Linux alone")
def test_setting_the_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before, started = identify_process(os.getpid()), psutil.Process().create_time()
    boot = psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: boot + 7200.0)
    assert psutil.Process().create_time() == pytest.approx(started + 7200.0)
    assert identify_process(os.getpid()) == before


def test_the_age_of_a_process_holds_no_second_that_never_passed() -> None:
    code = "from lightlm.process_identity import find_own_age as f; print(f())"
    for _ in range(3):  # the boot's whole seconds were off by up to one, always the same way
        began = time.monotonic()
        age = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
        assert 0 < float(age) <= time.monotonic() - began + 2 / os.sysconf("SC_CLK_TCK")
    assert find_own_age() > 0
