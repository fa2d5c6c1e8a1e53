"""A fork server for whole runs: imports torch, MLflow and Prefect once, then forks a command a line
of standard input.

A forked command is the command itself: `lightlm train` as lightlm_flows.cli.launching runs
it, with its worker and its outbox as processes of their own, forked as well where the command would
start a fresh Python. It answers, a line of JSON each, with the exit code and who was killed when.
"""

import contextlib
import importlib
import io
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import psutil

PATIENCE_SECONDS = 180.0
"""Only bounds a failure."""


SLOW_IMPORTS = (
    "torch",
    "transformers",
    "mlflow.pyfunc",
    "mlflow.tracking",
    "mlflow.store.tracking.sqlalchemy_store",
    "matplotlib.backends.backend_agg",
    "lightlm_flows.train",
    "lightlm.tracking.outbox_process",
    "lightlm.tracking.registration",
    "lightlm.training.run",
)


class Forked:
    """What lightlm uses of subprocess.Popen, for a process that is forked from this one."""

    def __init__(self, command: list[str], *, stderr: Any, env: dict[str, str], **_: Any) -> None:
        self.returncode: int | None = None
        their_in, our_in = os.pipe()
        our_out, their_out = os.pipe()
        self.pid = os.fork()

        if self.pid == 0:
            os.setsid()
            os.dup2(their_in, 0)
            os.dup2(their_out, 1)
            os.dup2(stderr.fileno(), 2)
            os.closerange(3, 1024)
            os.environ.update(env)
            become(command)

        os.close(their_in)
        os.close(their_out)
        self.reaping = threading.Lock()
        self.stdin = io.open(our_in, "w", encoding="utf-8")  # noqa: SIM115, UP020
        self.stdout = io.open(our_out, encoding="utf-8")  # noqa: SIM115, UP020

    def poll(self) -> int | None:
        with self.reaping:  # two threads may ask
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = time.monotonic() + (PATIENCE_SECONDS if timeout is None else timeout)
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("forked", timeout or PATIENCE_SECONDS)
            time.sleep(0.005)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def become(command: list[str]) -> None:
    """Be the worker or the outbox from here on; never returns."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    code = 1

    try:
        sys.stdin, sys.stderr = (
            os.fdopen(0, encoding="utf-8"),
            os.fdopen(2, "w", encoding="utf-8", buffering=1),
        )
        if "lightlm.training.worker" in command:
            from lightlm.training import worker

            worker.main()
        else:
            from lightlm.tracking import outbox_process

            outbox_process.main(Path(command[-1]))
        code = 0
    except BaseException:  # noqa: BLE001  (told by the exit code, as Python itself would)
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


def run_command(home: str, text: str, overrides: dict[str, Any], log: str) -> None:
    """Be `lightlm train`; never returns."""
    os.setsid()
    with Path(log).open("ab", buffering=0) as file, Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)

    os.environ["LIGHTLM_HOME"] = home
    code = 1
    try:
        from lightlm.errors import LightLMError
        from lightlm.params import load_params
        from lightlm.runs.launch import Launch
        from lightlm_flows.cli.launching import run_training
        from lightlm_flows.cli.signals import end_in_order
        from lightlm_flows.prefect_api import embedded

        params = load_params("base", overrides, dataset=text, hours=1.0)
        try:
            launch = Launch(time.monotonic())
            with end_in_order(launch), embedded.without_heartbeats():
                run_training(Path(home), params, text, "base", overrides, launch, None)
            code = 0
        except LightLMError as error:
            sys.stderr.write(f"lightlm: {error}\n")
            code = error.exit_code
    except BaseException:  # noqa: BLE001
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def find_children(pid: int) -> list[psutil.Process]:
    """Return the living processes under a command."""
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


def strike(pid: int, who: str) -> None:
    """Kill the command, its first child (the worker), or all of its processes, the
    command first.
    """
    children = find_children(pid)
    victims = {
        "command": [pid],
        "worker": [c.pid for c in children[:1]],
        "all": [pid, *(c.pid for c in children)],
    }[who]
    for victim in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)


class Trial:
    """One forked command, and when who is to be killed."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.started = time.monotonic()
        self.struck = request.get("who") is None
        self.was_struck = False
        self.pid = os.fork()
        if self.pid == 0:
            run_command(request["home"], request["text"], request["overrides"], request["log"])

    def look(self) -> dict[str, Any] | None:
        """Kill if it is time; return how the command ended, if it has."""
        done, status = os.waitpid(self.pid, os.WNOHANG)
        seconds = time.monotonic() - self.started
        if done:
            code = os.waitstatus_to_exitcode(status)
            return {
                "id": self.request["id"],
                "code": code,
                "seconds": seconds,
                "struck": self.was_struck,
            }

        if not self.struck and seconds >= self.request["after"]:
            strike(self.pid, self.request["who"])
            self.struck = self.was_struck = True

        if seconds > PATIENCE_SECONDS:
            strike(self.pid, "all")
            os.waitpid(self.pid, 0)
            return {
                "id": self.request["id"],
                "code": None,
                "seconds": seconds,
                "struck": self.was_struck,
            }

        return None


def serve(answers: io.TextIOBase) -> None:
    """Run commands side by side until the input ends; one thread alone, or forks would
    not be safe.
    """
    trials: list[Trial] = []
    pending = b""
    while True:
        if select.select([0], [], [], 0.003 if trials else None)[0]:
            chunk = os.read(0, 65536)
            if not chunk:
                return
            *lines, pending = (pending + chunk).split(b"\n")
            trials += [Trial(json.loads(line)) for line in lines]
        for trial in list(trials):
            ended = trial.look()
            if ended is not None:
                trials.remove(trial)
                answers.write(json.dumps(ended) + "\n")
                answers.flush()


def main() -> None:
    """Import everything, start one Prefect API for all, and serve."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    home = Path(sys.argv[1])
    os.environ["LIGHTLM_HOME"] = str(home)
    os.environ["OMP_NUM_THREADS"] = "1"
    from lightlm_flows.prefect_api import embedded

    embedded.apply_settings(home)
    api = embedded.start_api()

    for module in SLOW_IMPORTS:
        importlib.import_module(module)
    from lightlm.tracking import outbox, registry
    from lightlm.training import supervisor

    database = os.fork()
    if database == 0:  # it would leave its address in the environment
        registry.create_database(home)
        os._exit(0)

    os.waitpid(database, 0)
    forking = types.SimpleNamespace(
        Popen=Forked,
        PIPE=subprocess.PIPE,
        TimeoutExpired=subprocess.TimeoutExpired,
        DEVNULL=subprocess.DEVNULL,
    )

    supervisor.subprocess = outbox.subprocess = forking
    if api is not None:
        api.wait()

    answers.write(json.dumps({"ready": psutil.Process().num_threads()}) + "\n")
    answers.flush()
    serve(answers)
    if api is not None:
        api.stop()

    os._exit(0)


if __name__ == "__main__":
    main()
