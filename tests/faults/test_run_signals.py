"""The real command under Ctrl-C, SIGTERM, kill -9 of the parent, and Prefect's cancel: saved, in
order, nobody left.

Ten seconds are promised from the signal, or the cancel, to the end of the trainer; the figures are
printed.
"""

import json
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from lightlm.training.worker import ORPHAN_SECONDS

LIGHTLM = Path(sys.executable).with_name("lightlm")
PREFECT = Path(sys.executable).with_name("prefect")
STOP_SECONDS = 30.0
"""Ten are promised; a loaded machine gets more."""

CANCEL_SECONDS = 90.0
"""Prefect's worker asks every few seconds whether a run was cancelled, and then starts a process
for its hooks.
"""

HOURS = 0.015
LONG_HOURS = 0.05
"""Of runs that go on to their end, and of one that is cancelled."""

OVERRIDES = {"training.compile": "off"}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    choose = random.Random(0)
    words = (
        "river lantern teacher mountain engine garden letter winter captain window harbour story"
    ).split()
    path = tmp_path / "words.txt"
    path.write_text(
        "".join(" ".join(choose.choices(words, k=30)) + ".\n\n" for _ in range(400)),
        encoding="utf-8",
    )
    return path


def environment(home: Path) -> dict[str, str]:
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW", "LIGHTLM"))
    }
    return kept | {"LIGHTLM_HOME": str(home)}


def start(home: Path, text: Path) -> "subprocess.Popen[bytes]":
    """Start the command; its words go to home/command.log."""
    home.mkdir(exist_ok=True)
    options = [word for name, value in OVERRIDES.items() for word in ("--set", f"{name}={value}")]
    with (home / "command.log").open("ab") as log:
        return subprocess.Popen(
            [LIGHTLM, "train", "--hours", str(HOURS), "--dataset", text, *options],
            env=environment(home),
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


def list_processes(home: Path, words: str = "") -> list[str]:
    """Return the living processes of a home whose command holds `words`."""
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.environ().get("LIGHTLM_HOME") == str(home)
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return [command for command in found if words in command]


def list_checkpoints(home: Path) -> list[Path]:
    return sorted(home.glob("runs/*/checkpoints/step-*/manifest.json"))


def is_training(home: Path) -> bool:
    return bool(list_checkpoints(home))


def wait_for_end(home: Path, words: str, seconds: float) -> float:
    """Return how long it took until the processes whose command holds `words` were gone."""
    began = time.monotonic()
    assert wait_for(lambda: not list_processes(home, words), seconds), list_processes(home, words)
    return time.monotonic() - began


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_ended_by_a_signal_a_run_leaves_a_checkpoint_and_no_process_and_goes_on(
    number: int, tmp_path: Path, text: Path, tell: Callable[[str], None]
) -> None:
    home = tmp_path / "home"
    command = start(home, text)
    assert wait_for(lambda: is_training(home)), (home / "command.log").read_text()
    before = list_checkpoints(home)
    command.send_signal(number)
    trainer = wait_for_end(home, "lightlm.training.worker", STOP_SECONDS)
    code = command.wait(STOP_SECONDS)
    everything = trainer + wait_for_end(home, "", STOP_SECONDS)
    assert code == {2: 130, 15: 143, 9: -9}[number]
    tell(
        f"{signal.Signals(number).name}: trainer saved and gone after {trainer:.1f} s, all after "
        f"{everything:.1f} s"
    )

    # Slower than that, on a loaded machine, it is ended as it stands.
    assert list_checkpoints(home)[-1] > before[-1] or trainer > ORPHAN_SECONDS - 0.5, (
        "the trainer saved where it was"
    )
    log = (home / "command.log").read_text()
    assert ("run the same command again to go on" in log) == (number != signal.SIGKILL)
    if number == signal.SIGINT:  # the other two tell how it goes on
        return

    command = start(home, text)
    assert command.wait(400) == 0, (home / "command.log").read_text()
    assert "Continuing the unfinished run" in (home / "command.log").read_text()
    assert len(list((home / "runs").iterdir())) == 1


@pytest.fixture
def service(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Give the environment of `lightlm up`: Prefect's server, MLflow's, and a worker."""
    home = tmp_path / "home"
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        ports = [str(listener.getsockname()[1]) for listener in (one, other)]

    up = [LIGHTLM, "up", "--prefect-port", ports[0], "--mlflow-port", ports[1]]
    subprocess.run(up, env=environment(home), check=True, capture_output=True)
    try:
        said = subprocess.run(
            [LIGHTLM, "up", "--print-env"], env=environment(home), check=True, capture_output=True
        )
        words = [word for word in shlex.split(said.stdout.decode()) if "=" in word]
        yield environment(home) | dict(word.rstrip(";").split("=", 1) for word in words)
    finally:
        subprocess.run([LIGHTLM, "down"], env=environment(home), check=True, capture_output=True)


@pytest.mark.timeout(900)
def test_cancelled_in_prefect_a_run_of_a_worker_is_saved_and_nobody_is_left(
    service: dict[str, str], tmp_path: Path, text: Path, tell: Callable[[str], None]
) -> None:
    home = tmp_path / "home"

    def prefect(*words: str) -> str:
        done = subprocess.run(
            [PREFECT, *words],
            env=service,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    values = {"hours": LONG_HOURS, "dataset": str(text), "overrides": OVERRIDES}
    params = [
        word
        for name, value in values.items()
        for word in ("--param", f"{name}={json.dumps(value)}")
    ]

    others = set(list_processes(home))
    said = prefect("deployment", "run", "train-flow/train-flow", *params)
    flow_run = said.split("UUID: ")[1].split()[0]
    assert wait_for(lambda: is_training(home)), said
    before = list_checkpoints(home)
    prefect("flow-run", "cancel", flow_run)
    trainer = wait_for_end(home, "lightlm.training.worker", CANCEL_SECONDS)
    assert list_checkpoints(home)[-1] > before[-1], "the trainer saved where it was"
    began = time.monotonic()
    assert wait_for(lambda: set(list_processes(home)) <= others, CANCEL_SECONDS), (
        set(list_processes(home)) - others
    )

    everything = trainer + time.monotonic() - began
    assert wait_for(
        lambda: "CANCELLED" in prefect("flow-run", "inspect", flow_run).upper(), CANCEL_SECONDS
    )
    tell(
        f"Prefect's cancel: trainer saved and gone after {trainer:.1f} s, all after "
        f"{everything:.1f} s"
    )
