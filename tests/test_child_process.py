"""Tests of child processes that speak JSON lines: answers, deaths, and ends."""

import os
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from lightlm.child_process import (
    close_input,
    end_child,
    read_answers,
    send_message,
    start_child,
)

HEAD = "import os, subprocess, sys, time\nfrom lightlm.child_process import Answers, leave, watch_parent\n"


def start(tmp_path: Path, code: str) -> "subprocess.Popen[str]":
    (tmp_path / "child_module.py").write_text(HEAD + code)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).resolve().parents[1])])
    return start_child("child_module", log=tmp_path / "child.log", environment={"PYTHONPATH": path})


def test_messages_are_answered_and_what_is_printed_goes_to_the_log(tmp_path: Path) -> None:
    child = start(
        tmp_path,
        "answers = Answers()\nprint('a library speaks')\n"
        "for line in sys.stdin:\n    answers.send({'heard': line.strip()})\nleave()\n",
    )
    send_message(child, {"job": 1})
    close_input(child)
    assert list(read_answers(child)) == [{"heard": '{"job": 1}'}]
    assert child.wait(30) == 0
    assert "a library speaks" in (tmp_path / "child.log").read_text()


def test_a_line_torn_by_a_death_is_left_out_and_the_death_is_known(tmp_path: Path) -> None:
    child = start(
        tmp_path,
        "answers = Answers()\nanswers.send({'a': 1})\nanswers._stream.write('[1')\nanswers._stream.flush()\nos._exit(3)\n",
    )
    assert list(read_answers(child)) == [{"a": 1}]
    assert child.wait(30) == 3
    with pytest.raises(BrokenPipeError):
        send_message(child, {"job": "too late"})


def test_a_child_that_does_not_end_is_killed_with_what_it_started(tmp_path: Path) -> None:
    child = start(
        tmp_path,
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "Answers().send({'other': other.pid})\ntime.sleep(600)\n",
    )
    other = psutil.Process(next(iter(read_answers(child)))["other"])
    end_child(child, 0.1)
    assert child.returncode is not None
    deadline = time.monotonic() + 30
    while other.is_running() and other.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_child_knows_when_its_parent_is_gone(tmp_path: Path) -> None:
    child = start(tmp_path, "watch_parent(lambda: os._exit(7))\ntime.sleep(600)\n")
    end_child(child, 30.0)
    assert child.returncode == 7
