"""The real command under SIGTERM and kill -9 of the parent: in order, within ten seconds, and nobody is left behind."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

LIGHTLM = Path(sys.executable).with_name("lightlm")
STOP_SECONDS = 30.0
"""Ten are promised; a loaded machine gets more."""


@pytest.fixture
def text(tmp_path: Path) -> Path:
    choose = random.Random(0)
    words = "river lantern teacher mountain engine garden letter winter captain window harbour story".split()
    path = tmp_path / "words.txt"
    path.write_text("".join(" ".join(choose.choices(words, k=30)) + ".\n\n" for _ in range(400)), encoding="utf-8")
    return path


def start(home: Path, text: Path) -> "subprocess.Popen[str]":
    """Start the command; its words go to home/command.log."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW", "LIGHTLM"))}
    home.mkdir(exist_ok=True)
    with (home / "command.log").open("ab") as log:
        return subprocess.Popen(
            [LIGHTLM, "train", "--hours", "0.05", "--dataset", text, "--set", "training.compile=off"],
            env=kept | {"LIGHTLM_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def wait_for(what: Callable[[], object], seconds: float = 200.0) -> bool:
    """Wait until something holds; return whether it did in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.1)
    return False


def list_processes(home: Path) -> list[str]:
    """Return the living processes of a home."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("LIGHTLM_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def has_checkpoint(home: Path) -> bool:
    return any(home.glob("runs/*/checkpoints/step-*/manifest.json"))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_ended_by_a_signal_a_run_leaves_a_checkpoint_and_no_process_and_goes_on(
    number: int, tmp_path: Path, text: Path, tell: Callable[[str], None]
) -> None:
    home = tmp_path / "home"
    command = start(home, text)
    assert wait_for(lambda: has_checkpoint(home)), (home / "command.log").read_text()
    command.send_signal(number)
    ended = time.monotonic()
    code = command.wait(STOP_SECONDS)
    assert code == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    assert wait_for(lambda: not list_processes(home), STOP_SECONDS), list_processes(home)
    tell(f"{signal.Signals(number).name}: all processes gone after {time.monotonic() - ended:.1f} s")
    log = (home / "command.log").read_text()
    assert ("run the same command again to go on" in log) == (number == signal.SIGTERM)
    assert has_checkpoint(home)
    command = start(home, text)
    assert command.wait(400) == 0, (home / "command.log").read_text()
    assert "Continuing the unfinished run" in (home / "command.log").read_text()
    assert len(list((home / "runs").iterdir())) == 1
