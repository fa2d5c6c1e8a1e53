"""Child processes: how LightLM starts Python, and JSON lines between a process and its child.

`python -m` puts the current folder first on the search path, so that a `queue.py` or `numpy.py`
next to the text, in an unpacked data set for example, would run in place of the library's. `-P`
leaves the folder out.
"""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import psutil

from lightlm.json_object import JsonObject

POLL_SECONDS = 0.01
"""Seconds between two looks whether a child process has ended."""

KILL_SECONDS = 10.0
"""Seconds that a killed process gets to end: one that the kernel holds, on a dead disk, may not."""

SAFE_PATH: Mapping[str, str] = MappingProxyType({"PYTHONSAFEPATH": "1"})
"""Environment that does the same for what a child starts in turn: MLflow's web server, Prefect's
flow runs, the compiler's processes.
"""

Message = JsonObject
"""A line of JSON between a process and its child."""


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module, without the current folder on the search path."""
    return [sys.executable, "-P", "-m", module, *arguments]


class _Nothing:
    """A finder for folders that nothing is imported from."""

    @staticmethod
    def find_spec(name: str, target: object = None) -> None:
        """Find nothing."""


def refuse_relative_folders() -> None:
    """Import nothing from now on from relative folders of the search path.

    For the processes that update a database: alembic puts "." first on the path, as the settings of
    MLflow and Prefect ask for, and later imports would come from there.
    """
    sys.path_hooks.insert(0, _find_nothing)
    sys.path_importer_cache.pop(".", None)


def _find_nothing(folder: str) -> type[_Nothing]:
    if Path(folder).is_absolute():
        raise ImportError(f"{folder} is for the next finder")
    return _Nothing


def start_child(
    module: str,
    *arguments: str,
    log: Path | None,
    environment: Mapping[str, str] | None = None,
) -> "subprocess.Popen[str]":
    """Start a module as a child process that reads and writes JSON lines; its errors go to `log`,
    or where this process's own go.

    It has a session of its own: Ctrl-C in the terminal does not reach it.
    """
    with nullcontext() if log is None else log.open("ab") as errors:
        return subprocess.Popen(
            python_command(module, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **SAFE_PATH, **(environment or {})},
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )


def read_answers(process: "subprocess.Popen[str]") -> Iterator[Message]:
    """Yield what a child process answers until it ends; a line torn by its death is left out."""
    assert process.stdout is not None
    for line in process.stdout:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def send_message(process: "subprocess.Popen[str]", message: Message) -> None:
    """Send a child process a message.

    Raises:
        BrokenPipeError: it has ended.
    """
    assert process.stdin is not None
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()


def close_input(process: "subprocess.Popen[Any]") -> None:
    """End a child process's input, which asks it to end; more than once does no harm."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


def end_child(process: "subprocess.Popen[Any]", seconds: float) -> None:
    """End a child process: its input ends, it gets `seconds` to end itself, then it is killed."""
    close_input(process)
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    if process.poll() is None:
        kill_child(process)


def kill_child(process: "subprocess.Popen[Any]") -> None:
    """Kill a child process and what it started: compilers and ranks, which would go on alone."""
    started: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        started = psutil.Process(process.pid).children(recursive=True)

    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    for one in started:  # an agent's ranks have sessions of their own
        with contextlib.suppress(psutil.Error):
            one.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(KILL_SECONDS)


class Answers:
    """The child's side: sends JSON lines to the parent, from any thread.

    What else is printed goes to standard error: libraries print, and MLflow prints a run's address.
    """

    def __init__(self) -> None:
        self._stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
        self._lock = threading.Lock()
        os.dup2(2, 1)

    def send(self, message: Message) -> None:
        """Send a message; where the parent is gone, the work goes on without it."""
        line = json.dumps(message) + "\n"
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._stream.write(line)
            self._stream.flush()


def watch_parent(act: Callable[[], None]) -> None:
    """Call `act` in a thread once standard input ends: the parent has closed it, or died."""

    def watch() -> None:
        # Not sys.stdin: its lock, held by a daemon thread, makes the interpreter's end an abort.
        while os.read(0, 4096):
            pass
        act()

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


def leave() -> NoReturn:
    """End this process at once, after what libraries registered for its exit.

    Taking the interpreter and torch or MLflow apart would take 0.7 s, for which a run waits.
    """
    atexit._run_exitfuncs()
    sys.stderr.flush()
    os._exit(0)
