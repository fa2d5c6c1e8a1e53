"""Commands of `lightlm` as child processes: their lines, their result, their end.

Each has a folder under LIGHTLM_HOME/studio/jobs with its output. A training goes on when the
studio ends, and is then seen by its run's folder; everything else ends with the studio.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from lightlm.child_process import SAFE_PATH, kill_child, python_command
from lightlm.errors import BusyError, InputError, Interrupted
from lightlm.json_object import JsonObject
from lightlm.process_identity import describe_process
from lightlm.store.commit import remove_folder, write_file
from lightlm.store.disk import explain_refusals
from lightlm.store.remembered import read_checked, read_json

OUT = "out.json"
ERRORS = "lines.txt"
TRAINING = "training.json"

MOST_RUNNING = 4
"""Commands that run at a time, trainings aside."""

MOST_TRAININGS = 2
"""Trainings that the studio has started and that run at a time: they slow each other down."""

MOST_KEPT = 30
"""Jobs whose output is kept; the oldest that ended go first."""

SHOWN_LINES = 40
TAIL_BYTES = 16_384
"""Lines and bytes of a command's progress that are shown, the newest."""

STOP_SECONDS = 5.0
"""Seconds that a command gets to end in order when the studio ends."""

TRAIN = "train"


class Training(BaseModel):
    """A training that a studio has started: its process as locks name it, and what for."""

    holder: str
    request: JsonObject
    started_in: Path


@dataclass
class Job:
    """One command, running or ended."""

    id: str
    kind: str
    words: Sequence[str]
    folder: Path
    process: "subprocess.Popen[bytes]"
    started_in: Path
    request: JsonObject = field(default_factory=dict)
    started_at: float = field(default_factory=time.monotonic)
    is_stopped: bool = False

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self.process.poll() is None

    @property
    def state(self) -> str:
        """Running, done, stopped or failed."""
        code = self.process.poll()
        if code is None:
            return "running"
        if code == 0:
            return "done"
        return "stopped" if self.is_stopped or code == Interrupted.exit_code else "failed"

    def read_lines(self) -> list[str]:
        """Return the newest lines of its progress."""
        try:
            with (self.folder / ERRORS).open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - TAIL_BYTES))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return []
        return [line.rstrip() for line in text.splitlines() if line.strip()][-SHOWN_LINES:]

    def describe(self) -> JsonObject:
        """Return what the page shows of it; its result once it is done."""
        state = self.state
        lines = self.read_lines()
        value: dict[str, Any] = {
            "id": self.id,
            "kind": self.kind,
            "command": format_command(self.words),
            "state": state,
            "lines": lines,
        }
        if state == "done":
            value["result"] = read_json(self.folder / OUT)
        if state == "failed":
            said = lines[-1].removeprefix("lightlm: ") if lines else ""
            value["error"] = said or f"it ended with exit code {self.process.returncode}"
        return value


class Jobs:
    """The commands that this studio has started."""

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()
        self.folder = self.home / "studio" / "jobs"
        self._jobs: dict[str, Job] = {}

    def start(
        self,
        kind: str,
        words: Sequence[str],
        request: JsonObject | None = None,
        started_in: Path | None = None,
    ) -> Job:
        """Start a command in `started_in`, or the studio's own folder: relative paths begin there.

        Raises:
            BusyError: as many run already as may.
            InputError: `started_in` is gone.
            StoreError: the disk refused.
        """
        place = started_in or Path.cwd()
        if not place.is_dir():
            raise InputError(f"the run was started in {place}, which is gone; start a new run")
        is_training = kind == TRAIN
        running = [job for job in self._jobs.values() if job.is_running]
        running = [job for job in running if (job.kind == TRAIN) == is_training]
        most = MOST_TRAININGS if is_training else MOST_RUNNING
        if len(running) >= most:
            what = "trainings" if is_training else "commands"
            raise BusyError(f"{len(running)} {what} run already; wait for one, or stop one")

        self._prune()
        number = secrets.token_hex(8)
        folder = self.folder / number
        with explain_refusals(folder):
            folder.mkdir(mode=0o700, parents=True)
            process = start_command(words, folder, self.home, place)
        if is_training:
            holder = describe_process(process.pid)
            training = Training(holder=holder, request=request or {}, started_in=place)
            write_file(folder / TRAINING, training.model_dump_json().encode())
        job = Job(number, kind, words, folder, process, place, request or {})
        self._jobs[number] = job
        return job

    def find(self, number: str) -> Job:
        """Return a job.

        Raises:
            InputError: there is none of that number.
        """
        job = self._jobs.get(number)
        if job is None:
            raise InputError("this studio has not started that command; start it again")
        return job

    def list_trainings(self) -> list[Job]:
        """Return the trainings that were started, the newest first."""
        return [job for job in reversed(self._jobs.values()) if job.kind == TRAIN]

    def read_trainings(self) -> list[Training]:
        """Return the trainings of this studio and of earlier ones, by what their folders keep."""
        found = (
            read_checked(path, TypeAdapter(Training)) for path in self.folder.glob(f"*/{TRAINING}")
        )
        return [one for one in found if one is not None]

    def stop(self, number: str) -> Job:
        """Ask a command to end; return it."""
        job = self.find(number)
        job.is_stopped = True
        if job.is_running:
            with contextlib.suppress(OSError):
                job.process.send_signal(signal.SIGTERM)
        return job

    def close(self) -> None:
        """End every command but trainings."""
        ending = [job for job in self._jobs.values() if job.is_running and job.kind != TRAIN]
        for job in ending:
            self.stop(job.id)
        deadline = time.monotonic() + STOP_SECONDS
        for job in ending:
            with contextlib.suppress(subprocess.TimeoutExpired):
                job.process.wait(max(0.0, deadline - time.monotonic()))
            if job.is_running:
                kill_child(job.process)

    def _prune(self) -> None:
        ended = [job for job in self._jobs.values() if not job.is_running]
        for job in ended[: max(0, len(self._jobs) - MOST_KEPT + 1)]:
            del self._jobs[job.id]
            remove_folder(job.folder)
        for folder in sorted(self.folder.glob("*/"), key=lambda one: one.stat().st_mtime):
            # Of an earlier studio, whose trainings may still write there.
            is_known = folder.name in self._jobs
            if not is_known and time.time() - folder.stat().st_mtime > OLD_SECONDS:
                remove_folder(folder)


OLD_SECONDS = 7 * 86_400.0
"""Seconds after which the output of an earlier studio's commands is removed."""


def start_command(
    words: Sequence[str], folder: Path, home: Path, place: Path
) -> "subprocess.Popen[bytes]":
    """Start `lightlm` with these words in `place`; Ctrl-C at the studio's terminal does not reach
    it.
    """
    with (folder / OUT).open("wb") as out, (folder / ERRORS).open("wb") as errors:
        return subprocess.Popen(
            python_command("lightlm", *words),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            cwd=place,
            env=os.environ
            | SAFE_PATH
            | {"LIGHTLM_HOME": str(home), "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"},
            start_new_session=True,
        )


def format_command(words: Sequence[str]) -> str:
    """Return the command as a person would type it, without what only a program wants."""
    import shlex

    shown = [word for word in words if word not in ("--json", "--quiet", "--no-send")]
    return shlex.join(["lightlm", *shown])
