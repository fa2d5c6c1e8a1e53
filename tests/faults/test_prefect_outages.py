"""Prefect's API is killed before a run, while it starts, trains and ends: each run ends in time,
with its version.

A real server on loopback, as `prefect server start` starts it, a process each trial; all share one
database and one LIGHTLM_HOME, so that one `lightlm sync` at the end has to settle what Prefect was
not told.
"""

import http.client
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from .test_run_kills import NANO
from .test_run_kills import text as text  # the fixture

LIGHTLM = Path(sys.executable).with_name("lightlm")
SIDE_BY_SIDE = int(os.environ.get("FAULTS_SIDE_BY_SIDE", "2"))
UNDISTURBED = 2
"""Of each command, for comparison."""

RETRAINED = 2
OUTAGES = int(os.environ.get("FAULTS_OUTAGES", "10"))
"""Of those below, drawn; FAULTS_OUTAGES=2 for a quick look."""

KILLS = {"before": 1, "start": 2, "middle": 4, "end": 3}
SPANS = {"start": (0.05, 0.35), "middle": (0.35, 0.75), "end": (0.75, 1.0)}
"""Of an undisturbed run's seconds."""

PATIENCE_SECONDS = 400.0
"""Only bounds a failure: a process that waits for Prefect's events hung for 170 s."""

GONE_SECONDS = 10.0
STEPS = 300
MARK = "LIGHTLM_TRIAL"


def environment(**more: str) -> dict[str, str]:
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW", "LIGHTLM"))
    }
    return kept | {"DO_NOT_TRACK": "true", "OMP_NUM_THREADS": "1"} | more


class Server:
    """Prefect's server as a process that can be killed."""

    def __init__(self, prefect_home: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        words = (
            "--factory prefect.server.api.server:create_app --host 127.0.0.1 --log-level "
            "error --port"
        )

        self.process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", *words.split(), str(self.port)],
            env=environment(
                PREFECT_HOME=str(prefect_home), PREFECT_SERVER_ANALYTICS_ENABLED="false"
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.ask("GET", "/health") is None:
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the JSON answer; None where there is no server."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            try:
                headers = {"Content-Type": "application/json"}
                connection.request(
                    method, f"/api{path}", None if body is None else json.dumps(body), headers
                )
                answer = connection.getresponse()
                return json.load(answer) if answer.status < 300 else None
            except (OSError, http.client.HTTPException):
                return None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def open_server(prefect_home: Path) -> Iterator[Server]:
    server = Server(prefect_home)
    try:
        yield server
    finally:
        server.kill()


@dataclass
class Trial:
    """One run and the moment at which its API dies; then what became of it."""

    number: int
    when: str
    after: float | None = None
    command: str = "train"
    seconds: float = 0.0
    code: int | None = None
    said: str = ""
    summary: Any = None
    left: tuple[str, ...] = ()

    @property
    def tail_seconds(self) -> float:
        """From the run's own end, as its summary says, to the end of its process."""
        run = self.summary.get("run") or self.summary
        return self.seconds - run["elapsed_seconds"]


@dataclass(frozen=True)
class Place:
    """What all trials share."""

    folder: Path
    text: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def prefect_home(self) -> Path:
        return self.folder / "prefect"

    def run(self, trial: Trial) -> Trial:
        """Run one command against a server of its own, which dies when it is to."""
        with open_server(self.prefect_home) as server:
            if trial.when == "before":
                server.kill()
            began = time.monotonic()
            values = NANO | {"budget.max_steps": STEPS, "training.seed": trial.number}
            overrides = [
                word
                for name, value in values.items()
                for word in ("--set", f"{name}={json.dumps(value)}")
            ]
            more = ["--force", "--start", "scratch"] if trial.command == "retrain" else []
            words = [
                trial.command,
                "--json",
                "--hours",
                "1",
                "--dataset",
                str(self.text),
                *overrides,
                *more,
            ]
            command = subprocess.Popen(
                [LIGHTLM, *words],
                env=environment(
                    LIGHTLM_HOME=str(self.home),
                    PREFECT_API_URL=server.url,
                    **{MARK: f"{self.folder}-{trial.number}"},
                ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            if trial.after is not None:
                time.sleep(max(0.0, began + trial.after - time.monotonic()))
                server.kill()
            try:
                out, trial.said = command.communicate(timeout=PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                command.kill()
                out, trial.said = command.communicate()
            trial.code, trial.seconds = command.returncode, time.monotonic() - began
            trial.summary = json.loads(out) if out else None

        trial.left = self.list_left(trial)
        return trial

    def list_left(self, trial: Trial) -> tuple[str, ...]:
        """Return the processes of a trial that are there GONE_SECONDS after its command's end."""
        deadline = time.monotonic() + GONE_SECONDS
        found = ("?",)
        while found and time.monotonic() < deadline:
            found = tuple(find_processes(f"{self.folder}-{trial.number}"))
            time.sleep(0.1)
        return found


def find_processes(mark: str) -> Iterator[str]:
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield " ".join(process.cmdline())
        except psutil.Error:
            continue


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("prefect")
    place = Place(folder, text)
    place.prefect_home.mkdir()
    yield place
    shutil.rmtree(folder)


def draw_trials(draw: random.Random, usual: dict[str, float]) -> list[Trial]:
    """Return the trials, in random order; two of them retrain. `usual`: seconds of each command
    undisturbed.
    """
    whens = [when for when, count in KILLS.items() for _ in range(count)]
    draw.shuffle(whens)
    trials = []
    for number, when in enumerate(whens[:OUTAGES]):
        command = "retrain" if number < RETRAINED else "train"
        after = draw.uniform(*SPANS[when]) * usual[command] if when in SPANS else None
        trials.append(Trial(2 * UNDISTURBED + number, when, after, command))
    return trials


def end_of(trial: Trial) -> tuple[int | None, bool, bool, tuple[str, ...]]:
    """Return exit code, whether a version came out, whether it failed loudly, and the processes
    that stayed.
    """
    summary = trial.summary or {}
    summary = summary.get("run") or summary
    return trial.code, bool(summary.get("model_version")), "Traceback" in trial.said, trial.left


def settle(place: Place) -> tuple[list[str], dict[str, int]]:
    """Return what `lightlm sync` ended once the API was back, and the states of all flow
    runs then.
    """
    with open_server(place.prefect_home) as server:
        done = subprocess.run(
            [LIGHTLM, "sync", "--json"],
            env=environment(LIGHTLM_HOME=str(place.home), PREFECT_API_URL=server.url),
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        states = [run["state_type"] for run in server.ask("POST", "/flow_runs/filter", {})]
        return json.loads(done.stdout)["flow_runs"], {
            state: states.count(state) for state in sorted(set(states))
        }


@pytest.mark.timeout(1200)
def test_a_run_whose_prefect_api_is_killed_ends_with_its_version_and_prefect_is_told_afterwards(
    place: Place, draw: random.Random, tell: Callable[[str], None]
) -> None:
    open_server(place.prefect_home).__enter__().kill()  # makes the database, which takes seconds
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        commands = ["train"] * UNDISTURBED + ["retrain"] * UNDISTURBED
        plain = list(
            pool.map(
                place.run,
                [Trial(n, "never", command=command) for n, command in enumerate(commands)],
            )
        )
        assert [end_of(trial) for trial in plain] == [(0, True, False, ())] * len(plain), plain[
            0
        ].said[-3000:]
        usual = {
            name: statistics.median(t.seconds for t in plain if t.command == name)
            for name in commands
        }
        trials = list(pool.map(place.run, draw_trials(draw, usual)))

    lost = [trial for trial in trials if end_of(trial) != (0, True, False, ())]
    assert not lost, [(t.when, t.after, t.command, end_of(t), t.said[-2000:]) for t in lost]
    added = [trial.seconds - usual[trial.command] for trial in trials]
    each = ", ".join(f"{t.when} {a:+.1f}" for t, a in zip(trials, added, strict=True))
    ended, states = settle(place)
    tell(
        f"{len(trials)} of {len(trials)} runs of {usual['train']:.1f} s succeeded (retrain: "
        f"{usual['retrain']:.1f} s), "
        f"{statistics.mean(added):+.1f} s ({each}); processes gone at most "
        f"{max(t.tail_seconds for t in trials):.1f} s after the run's end, else "
        f"{plain[0].tail_seconds:.1f} s; "
        f"{len(ended)} states told afterwards, Prefect: {states}; no process left"
    )

    assert set(states) <= {"COMPLETED", "CRASHED"}
