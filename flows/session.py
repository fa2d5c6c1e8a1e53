"""What the tasks of one train-flow share: params, clock, run folder, recorder, and the two child processes.

Owns their lives: whatever happens inside, the worker and the outbox are stopped and the run gets its end state.
"""

import logging
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from lightlm.budget.ledger import Ledger
from lightlm.budget.plan import Plan
from lightlm.console.progress import Progress
from lightlm.console.tables import draw_checks, draw_plan
from lightlm.errors import Interrupted
from lightlm.params import Params
from lightlm.store.home import find_home
from lightlm.system import Check
from lightlm.tracking.outbox import Outbox
from lightlm.tracking.recorder import Recorder
from lightlm.training.supervisor import Worker


@dataclass
class Launch:
    """What a command starts before the flow, so that slow imports overlap: clock, worker, display."""

    started_at: float | None = None
    folder: Path | None = None
    worker: Worker | None = None
    is_quiet: bool = False


LAUNCH: ContextVar[Launch | None] = ContextVar("launch", default=None)
"""Set by the command line; a deployment's flow finds None and starts everything itself."""

LOGGER = logging.getLogger("lightlm")
"""What Prefect shows beside a flow run; the terminal has the progress panel instead."""


@dataclass
class Session:
    """One train-flow's shared parts."""

    params: Params
    home: Path
    folder: Path
    ledger: Ledger
    recorder: Recorder
    worker: Worker
    outbox: Outbox
    progress: Progress
    facts: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, message: str) -> Iterator[None]:
        """Charge the time inside to a stage of the ledger and show its message."""
        LOGGER.info(message)
        self.progress.enter_stage(message)
        with self.ledger.stage(name):
            yield

    def say(self, message: str) -> None:
        """Tell whoever watches, at the terminal and on Prefect's page."""
        LOGGER.info(message)
        self.progress.say(message)

    def draw(self, table: RenderableType) -> None:
        """Print a table above the panel."""
        if not self.progress.is_quiet:
            self.progress.console.print(table)

    def draw_checks(self, checks: Sequence[Check]) -> None:
        """Print the lines of the system check."""
        self.draw(draw_checks(checks, self.progress.console))

    def draw_plan(self, plan: Plan) -> None:
        """Print the plan, its runners-up and its reasons."""
        self.draw(draw_plan(plan, self.progress.console))


def name_run_folder(home: Path) -> Path:
    """Return a new folder's path under LIGHTLM_HOME/runs: sorted by time, never taken twice."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return home / "runs" / f"{stamp}-{secrets.token_hex(3)}"


def worker_environment(home: Path) -> dict[str, str]:
    """Return what the worker's environment adds: a compile cache that outlives the run."""
    return {
        "TORCHINDUCTOR_CACHE_DIR": os.environ.get("TORCHINDUCTOR_CACHE_DIR", str(home / "cache" / "inductor")),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "true",
        # Threads that wait for each other give their core away soon: beside two busy neighbours training then keeps
        # its share of two cores (13,000 tokens/s instead of 7,500), and loses nothing alone.
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "5000"),
    }


def start_worker(folder: Path, home: Path) -> Worker:
    """Start the process that computes; it imports torch while the caller goes on."""
    worker = Worker(folder, worker_environment(home))
    worker.start()
    return worker


@contextmanager
def open_session(params: Params, name: str, tags: Mapping[str, str]) -> Iterator[Session]:
    """Start what a train-flow needs; at the end stop it and give the run its end state.

    `name` and `tags` are the run's in MLflow.
    """
    launch = LAUNCH.get() or Launch()
    home = find_home()
    ledger = Ledger(params.budget.hours, started_at=launch.started_at, clock=time.monotonic)
    folder = launch.folder or name_run_folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    worker = launch.worker or start_worker(folder, home)
    recorder = Recorder(folder)
    recorder.start_run(
        name,
        params.tracking.experiment,
        tags,
        f"{name}: still running; folder `{folder.name}`",
        system_metrics=params.tracking.system_metrics,
    )
    outbox = Outbox.start(folder)
    session = Session(
        params=params,
        home=home,
        folder=folder,
        ledger=ledger,
        recorder=recorder,
        worker=worker,
        outbox=outbox,
        progress=Progress(ledger, quiet=launch.is_quiet),
    )
    status, reason = "FAILED", ""
    try:
        with session.progress:
            yield session
        status = "FINISHED"
    except BaseException as error:
        # Prefect cancels by an exception of its own that is no Exception.
        is_stopped = isinstance(error, Interrupted) or not isinstance(error, Exception)
        status, reason = "KILLED" if is_stopped else "FAILED", str(error)
        raise
    finally:
        worker.stop()
        if status != "FINISHED":
            recorder.describe(f"{name}: {status.lower()}; folder `{folder.name}`. {reason}")
            recorder.finish(status)
        shipment = outbox.close()
        recorder.close()
        if shipment.error and not shipment.num_unsent:
            session.say(f"MLflow took the run, but not all of it: {shipment.error}")
        elif shipment.num_unsent:
            session.say(
                f"MLflow did not take {shipment.num_unsent} records ({shipment.error}); they are kept in {folder} "
                "and sent by the next run"
            )
