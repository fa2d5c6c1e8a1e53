"""The main of a mirror's process: writes a run's record into Trackio or Weights & Biases."""

import importlib
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from lightlm.child_process import Answers, leave, watch_parent
from lightlm.redaction import redact
from lightlm.store.commit import write_file
from lightlm.store.remembered import read_checked
from lightlm.tracking.following import Sink, follow
from lightlm.tracking.record import AnyRecord, Finish, Metrics, Params, Start, Text

NICENESS = 10
"""Niceness of this process: below training and the outbox."""

GRACE_SECONDS = 120.0
"""Seconds that the rest gets after the run's end; what is not sent then, `wandb sync` sends."""

MOST_CHARACTERS = 2000
"""Characters of a sample that a mirror gets."""


class WandbRun:
    """The run in Weights & Biases, in files of the run's folder and, unless offline, there."""

    def __init__(self, folder: Path, project: str, start: Start) -> None:
        wandb = importlib.import_module("wandb")
        # Nothing of the machine or its code is sent that the record does not have.
        settings = wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            save_code=False,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )
        self._run = wandb.init(
            project=project,
            id=start.run_key,
            name=start.name,
            notes=start.description,
            dir=os.environ.get("WANDB_DIR", str(folder)),
            resume="allow",
            settings=settings,
        )
        # its own steps never go back, as ours do where training restores a checkpoint
        self._run.define_metric("*", step_metric="step")
        self._is_finished = False

    def write(self, record: AnyRecord) -> None:
        """Write numbers, samples and params."""
        if isinstance(record, Metrics):
            self._run.log({**record.values, "step": record.step})
        elif isinstance(record, Text) and record.sample_step is not None:
            sample = record.content[:MOST_CHARACTERS]
            self._run.log({"sample": sample, "step": record.sample_step})
        elif isinstance(record, Params):
            self._run.config.update(record.values, allow_val_change=True)
        elif isinstance(record, Finish):
            self._is_finished = record.status == "FINISHED"

    def flush(self) -> None:
        """Nothing: its own process writes as it gets."""

    def close(self) -> None:
        """Send the rest."""
        self._run.finish(exit_code=0 if self._is_finished else 1)


class TrackioRun:
    """The run in Trackio's database on this machine, or where its own settings say."""

    def __init__(self, project: str, start: Start) -> None:
        trackio = importlib.import_module("trackio")
        self._run = trackio.init(
            project=project,
            name=f"{start.name}-{start.run_key.rpartition('-')[2]}",
            resume="allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        self._held: list[Metrics] | None = []

    def write(self, record: AnyRecord) -> None:
        """Write numbers, and params before the first: they are sent along with it."""
        if isinstance(record, Params):
            self._run.config.update(record.values)
            self._write_held()
        elif isinstance(record, Metrics) and self._held is not None:
            self._held.append(record)
        elif isinstance(record, Metrics):
            self._run.log(dict(record.values), step=record.step)

    def _write_held(self) -> None:
        held, self._held = self._held or [], None
        for record in held:
            self.write(record)

    def flush(self) -> None:
        """Nothing: it writes by a thread of its own."""

    def close(self) -> None:
        """Write the rest."""
        self._write_held()
        self._run.finish()


def open_run(kind: str, project: str, folder: Path, start: Start) -> Sink:
    """Return the run in a mirror."""
    return WandbRun(folder, project, start) if kind == "wandb" else TrackioRun(project, start)


def mirror(kind: str, project: str, folder: Path, is_over: threading.Event) -> None:
    """Mirror a run to its end; what an earlier process of the run has mirrored is left out."""
    path = folder / f"{kind}.json"
    sent: Any = read_checked(path, TypeAdapter(int)) or 0
    follow(
        folder,
        is_over,
        lambda start: open_run(kind, project, folder, start),
        sent,
        lambda offset: write_file(path, str(offset).encode()),
    )


def main(kind: str, project: str, folder: Path) -> None:
    """Be the process, until the run is over and the rest is sent, or its time is."""
    Answers()  # what libraries print goes into the log
    is_over = threading.Event()
    watch_parent(is_over.set)
    if hasattr(os, "nice"):
        os.nice(NICENESS)

    def end() -> None:
        is_over.wait()
        threading.Event().wait(GRACE_SECONDS)
        os._exit(1)

    threading.Thread(target=end, name="end", daemon=True).start()
    try:
        mirror(kind, project, folder, is_over)
    except Exception as error:  # noqa: BLE001  (whatever a library raises, the run goes on without its mirror)
        with suppress(OSError):
            sys.stderr.write(redact(f"{type(error).__name__}: {error}\n"))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    leave()
