"""What does a death cost? kill -9 of runs, and of each part of `lightlm up`, whole commands.

    .venv/bin/python benchmarks/killed.py --dataset FILE [--only twelve ...]

Runs: twelve kills over 43 s, four around the registration of an 18 s run. The same command starts
again at once, and the time of all its lives counts, by the run's ledger and by a stopwatch. Each
kill may cost 1 s more than the promise. Service: each part is killed while a run of its trains.
Printed: seconds until the part answers again, and how the run ended.
"""

import argparse
import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from commands import LIGHTLM, ROOT, run_train

from lightlm.tracking.record import Register, read_records

PARTS = ("prefect", "mlflow", "worker", "keeper")
IsDue = Callable[[float], bool]


@dataclass(frozen=True)
class Kill:
    """Who is killed: the whole tree, the command or its training process; and when, asked with the
    seconds of all lives so far.
    """

    target: str
    is_due: IsDue


def kill(command: "subprocess.Popen[bytes]", target: str) -> None:
    """Kill a command, its training process, or it with all that it started."""
    family = psutil.Process(command.pid).children(recursive=True)
    if target == "command":
        command.kill()
        return
    for process in family:
        try:
            is_meant = target == "tree" or "lightlm.training.worker" in " ".join(process.cmdline())
            if is_meant:
                process.kill()
        except psutil.Error:
            continue
    if target == "tree":
        command.kill()


def run_killed(home: Path, hours: float, dataset: str, kills: list[Kill]) -> dict[str, Any]:
    """Return the summary of a run that was killed and started again, with `stopwatch_seconds` over
    all lives and `num_kills`.
    """
    words = ["train", "--hours", str(hours), "--dataset", dataset, "--json", "--quiet"]
    left = list(kills)
    seconds = 0.0
    while True:
        with tempfile.TemporaryFile() as out:
            started = time.perf_counter()
            command = subprocess.Popen(
                [*LIGHTLM, *words],
                cwd=ROOT,
                env=os.environ | {"LIGHTLM_HOME": str(home)},
                stdout=out,
                stderr=subprocess.DEVNULL,
            )

            while command.poll() is None:
                if left and left[0].is_due(seconds + time.perf_counter() - started):
                    kill(command, left.pop(0).target)
                time.sleep(0.02)
            seconds += time.perf_counter() - started
            out.seek(0)
            if command.returncode == 0:
                return json.load(out) | {
                    "stopwatch_seconds": round(seconds, 2),
                    "num_kills": len(kills) - len(left),
                }
        if command.returncode != -signal.SIGKILL:
            raise RuntimeError(f"{words} ended with {command.returncode}")


def spread(count: int, seconds: float) -> list[Kill]:
    """Return kills at even distances, of the tree, the command and the training process in turn."""
    targets = ("tree", "command", "worker")

    def is_due(at: float, spent: float) -> bool:
        return spent >= at

    return [
        Kill(targets[number % 3], partial(is_due, seconds * (number + 1) / (count + 1)))
        for number in range(count)
    ]


def around_registration(home: Path, count: int) -> list[Kill]:
    """Return kills of the tree just after each life has asked for the registration."""
    known = set((home / "runs").iterdir())

    def is_due(number: int, _: float) -> bool:
        new = [folder for folder in (home / "runs").iterdir() if folder not in known]
        asked = (
            record
            for folder in new
            if folder.is_dir()
            for record, _ in read_records(folder)
            if isinstance(record, Register)
        )
        is_asked = sum(1 for _ in asked) > number
        if is_asked:
            time.sleep(0.1 * number)
        return is_asked

    return [Kill("tree", partial(is_due, number)) for number in range(count)]


def count_versions(home: Path) -> int:
    """Return how many versions are registered in a home."""
    with contextlib.closing(sqlite3.connect(home / "mlflow.db")) as database:
        return database.execute("SELECT count(*) FROM model_versions").fetchone()[0]


def try_kills(name: str, home: Path, hours: float, dataset: str, kills: list[Kill]) -> str:
    """Return the figures of one run under kills."""
    before = count_versions(home)
    run = run_killed(home, hours, dataset, kills)
    budget = run["budget_seconds"]
    allowed = run["num_kills"]
    ledger = run["elapsed_seconds"] - budget
    stopwatch = run["stopwatch_seconds"] - budget
    is_kept = ledger <= max(2, 0.01 * budget) + allowed
    return (
        f"{name:34} {allowed:2} kills  ledger {ledger:+5.1f} s, stopwatch {stopwatch:+5.1f} s "
        f"({'kept' if is_kept else 'LATE'}), versions {count_versions(home) - before}, "
        f"rate ends at {run['final_learning_rate_factor']:.3f}, "
        f"{run['bits_per_byte']:.3f} bits per byte"
    )


class Up:
    """The service of a home, and what it answers."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = os.environ | {"LIGHTLM_HOME": str(home)}
        self.ports = list(find_ports(2))

    def __call__(self, *words: str) -> str:
        """Return what a command of lightlm prints."""
        done = subprocess.run(
            [*LIGHTLM, *words], cwd=ROOT, env=self.environment, capture_output=True, check=True
        )
        return done.stdout.decode()

    def start(self) -> None:
        """Start what does not run, and learn where it is."""
        self("up", "--prefect-port", self.ports[0], "--mlflow-port", self.ports[1])
        for line in self("up", "--print-env").splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            self.environment[name] = value.strip("'")

    def parts(self) -> dict[str, dict[str, Any]]:
        """Return the status of each part."""
        return {part["name"]: part for part in json.loads(self("status", "--json"))["parts"]}

    def ask(self, path: str, body: dict[str, Any] | None = None, **headers: str) -> Any:
        """Return Prefect's answer to a GET, or with a `body` to a POST, which needs a token."""
        secret = base64.b64encode(self.environment["PREFECT_API_AUTH_STRING"].encode()).decode()
        if body is not None:
            token = self.ask("csrf-token?client=killed")["token"]
            headers |= {"Prefect-Csrf-Client": "killed", "Prefect-Csrf-Token": token}
        request = urllib.request.Request(
            f"{self.environment['PREFECT_API_URL']}/{path}",
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Basic {secret}"} | headers,
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def start_run(self, hours: float, dataset: str) -> None:
        """Let the worker train."""
        (deployment,) = self.ask(
            "deployments/filter", {"deployments": {"name": {"any_": ["train-flow"]}}}
        )
        parameters = {"hours": hours, "dataset": dataset}
        self.ask(f"deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})

    def newest_run(self) -> dict[str, Any]:
        """Return the newest run of this machine."""
        (run,) = json.loads(self("runs", "--json", "-n", "1"))["runs"]
        return run

    def last_run(self) -> str:
        """Return the state of the newest run in Prefect."""
        (run,) = self.ask("flow_runs/filter", {"limit": 1, "sort": "START_TIME_DESC"})
        return run["state"]["name"]


def find_ports(count: int) -> Iterator[str]:
    """Yield ports where nothing listens."""
    for _ in range(count):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield str(listener.getsockname()[1])


def kill_part(up: Up, name: str, dataset: str, hours: float) -> str:
    """Kill a part of the service in the middle of a run; return what came back, and when."""
    before_run = count_versions(up.home)
    up.start_run(hours, dataset)
    started = time.monotonic()
    known = set((up.home / "runs").glob("*/checkpoints"))
    while time.monotonic() - started < 25:
        if set((up.home / "runs").glob("*/checkpoints")) - known:
            break
        time.sleep(0.2)
    before = up.parts()[name]
    os.kill(before["pid"], signal.SIGKILL)
    killed = time.monotonic()
    if name == "keeper":
        up.start()

    while True:
        part = up.parts()[name]
        is_back = part["is_running"] and part["pid"] != before["pid"]
        if is_back and part["answers"] is not False:
            break
        if time.monotonic() - killed > 240:
            return f"{name:10} not back after 240 s"
        time.sleep(0.2)
    back = time.monotonic() - killed

    run = up.newest_run()
    while run["state"] == "running" and time.monotonic() - started < 3600 * hours + 90:
        time.sleep(1)
        run = up.newest_run()
    seconds = time.monotonic() - started
    time.sleep(5)
    return (
        f"{name:10} back after {back:4.1f} s; its run: {run['state']}, "
        f"{seconds:.0f} s after it was asked for; in Prefect {up.last_run()}; "
        f"versions {count_versions(up.home) - before_run}"
    )


def main() -> None:
    """Kill runs, then parts of a service; print a line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--only", action="append", help="words of what to kill")
    given = parser.parse_args()
    dataset = str(Path(given.dataset).resolve())

    def is_wanted(name: str) -> bool:
        return not given.only or any(word in name for word in given.only)

    home = Path(tempfile.mkdtemp(prefix="lightlm-killed-"))
    try:
        run_train(home, 0.005, dataset)
        if is_wanted("twelve over 43 s"):
            print(try_kills("twelve over 43 s", home, 0.012, dataset, spread(12, 43.2)), flush=True)
        if is_wanted("four around registration"):
            kills = around_registration(home, 4)
            print(try_kills("four around registration", home, 0.005, dataset, kills), flush=True)
        if any(is_wanted(name) for name in PARTS):
            up = Up(home)
            up.start()
            try:
                for name in filter(is_wanted, PARTS):
                    print(kill_part(up, name, dataset, 0.01), flush=True)
            finally:
                up("down")
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
