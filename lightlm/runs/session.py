"""The session of a run: what its stages share, from the clock to the two child processes.

Whatever happens inside, the worker and the outbox are stopped and the run gets its end state.
"""

import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import RenderableType

from lightlm.budget.allowance import MOST_SECONDS, PATIENCE, RECORD, Allowance
from lightlm.budget.ledger import Ledger
from lightlm.budget.neighbors import Neighbors
from lightlm.budget.plan import Plan
from lightlm.console.progress import Progress
from lightlm.console.tables import render_checks, render_plan
from lightlm.errors import (
    BusyError,
    InputError,
    Interrupted,
    LightLMError,
    StoreError,
    TrainingError,
    UnexpectedError,
    WorkerBug,
)
from lightlm.params import Params
from lightlm.redaction import redact
from lightlm.runs.folder import CONTINUED, Run, claim_run
from lightlm.runs.launch import Launch
from lightlm.runs.orchestrator import NO_FLOW_RUN, FlowRun, RunPage, SilentPage
from lightlm.runs.stage_names import STAGES
from lightlm.store.commit import write_file
from lightlm.store.shared import SharedStore, share_stages
from lightlm.system import Check
from lightlm.tracking.mirrors import Mirrors
from lightlm.tracking.outbox import Outbox
from lightlm.tracking.recorder import Recorder
from lightlm.tracking.tensorboard import tag_folder
from lightlm.training.supervisor import Worker

LOGGER = logging.getLogger("lightlm")
"""Logger whose messages Prefect shows with a flow run; the terminal has the panel instead."""

LEAST_RECORD_SECONDS = 1.5
HOPELESS_SECONDS = 0.2
"""Seconds that the rest of a record gets at least: if MLflow answers, and if it does not."""

STOPPED_SECONDS = 5.0
"""Seconds that it gets at most if someone waits for a run to stop."""

RECORDER_SECONDS = 5.0
RETRY_SECONDS = 0.1
"""Seconds to try to open the record, and between tries."""


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
    mirrors: Mirrors
    progress: Progress
    run: Run
    allowance: Allowance
    neighbors: Neighbors = field(default_factory=Neighbors)
    page: RunPage = field(default_factory=SilentPage)
    flow_run: FlowRun = NO_FLOW_RUN
    shared: SharedStore | None = None
    launch: Launch | None = None
    """What a command started before the run; None in a deployment's flow."""

    def check_stop(self) -> None:
        """Raise KeyboardInterrupt where a signal has asked the command for the end."""
        if self.launch is not None:
            self.launch.check_stop()

    @contextmanager
    def stage(self, name: str, message: str = "") -> Iterator[None]:
        """Charge the time inside to a stage of the ledger and show its message, or the usual one.

        Raises:
            KeyboardInterrupt: a signal has asked for the end.
            UnexpectedError: a bug; before Prefect keeps its message and traceback as they are.
        """
        self.check_stop()
        message = message or STAGES[name]
        LOGGER.info(message)
        self.progress.enter_stage(message)

        with self.ledger.stage(name):
            try:
                yield
            except LightLMError:
                raise
            except Exception as error:  # noqa: BLE001
                self.check_stop()
                raise keep_traceback(error, self.folder) from None
        if self.shared is not None:
            self.ledger.split(name, {"shared store": self.shared.take_seconds()})

    def log(self, message: str) -> None:
        """Show a message at the terminal and on Prefect's page."""
        message = redact(message)
        LOGGER.info(message)
        self.progress.log(message)

    def print_table(self, table: RenderableType) -> None:
        """Print a table above the panel."""
        if not self.progress.is_quiet:
            self.progress.console.print(table)

    def render_checks(self, checks: Sequence[Check]) -> None:
        """Print the lines of the system check."""
        self.print_table(render_checks(checks, self.progress.console))

    def render_plan(self, plan: Plan) -> None:
        """Print the plan, its runners-up and its reasons."""
        self.print_table(render_plan(plan, self.progress.console))
        self.progress.follow(plan)


def worker_environment(home: Path) -> dict[str, str]:
    """Return what the worker's environment adds: a compile cache that outlives the run."""
    return {
        "TORCHINDUCTOR_CACHE_DIR": os.environ.get(
            "TORCHINDUCTOR_CACHE_DIR", str(home / "cache" / "inductor")
        ),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "true",
        # Threads that wait for each other give their core away soon: with two busy neighbors
        # training then keeps its share of two cores (13,000 tokens/s instead of 7,500), and loses
        # nothing alone.
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "5000"),
        # Freed memory stays with the process, of blocks up to 32 MB, glibc's largest: asking the
        # system for it again page by page cost 15 to 25 % of a step and two thirds of scoring (1 x
        # 128, vocabulary 4,096 and 8,192).
        "MALLOC_MMAP_THRESHOLD_": os.environ.get("MALLOC_MMAP_THRESHOLD_", str(32 * 2**20)),
        "MALLOC_TRIM_THRESHOLD_": os.environ.get("MALLOC_TRIM_THRESHOLD_", str(2**30)),
    }


def start_worker(folder: Path, home: Path, *, is_needed: bool = True) -> Worker:
    """Return the worker, started if it is needed: it imports torch while the caller goes on."""
    worker = Worker(folder, worker_environment(home))
    if is_needed:
        worker.start()
    return worker


@contextmanager
def open_session(
    home: Path,
    params: Params,
    name: str,
    tags: Mapping[str, str],
    page: RunPage,
    flow_run: FlowRun,
    launch: Launch | None = None,
) -> Iterator[Session]:
    """Start what a run needs, or continue the unfinished run; at the end stop it and record the
    end.

    `name` and `tags` are the run's in MLflow, `page` and `flow_run` its orchestrator's. `launch` is
    what a command has started already; without it, all is started here.

    Raises:
        UnexpectedError: a bug; its traceback is in the run's folder.
    """
    started = launch or Launch()
    run = started.run or claim_run(
        home, name, params, started_at=started.started_at, is_fresh=started.is_fresh
    )

    with closing(run), ExitStack() as children:
        worker = started.worker or start_worker(run.folder, home, is_needed=not run.is_scored)
        children.callback(worker.stop)
        session = Session(
            params=params,
            home=home,
            folder=run.folder,
            ledger=run.ledger,
            recorder=open_recorder(run, name, params, tags),
            worker=worker,
            outbox=started.outbox or Outbox.start(home, run.folder),
            mirrors=Mirrors(run.folder, params.tracking),
            progress=Progress(run.ledger, quiet=started.is_quiet),
            run=run,
            allowance=PATIENCE.follow(run.ledger),
            page=page,
            flow_run=flow_run,
            launch=launch,
        )
        started.progress = session.progress
        session.shared = children.enter_context(
            share_stages(params.store, run.ledger.budget_seconds, session.log)
        )
        status = "FAILED"
        reason = ""
        try:
            with session.progress:
                log_continuation(session)
                yield session
            status = "FINISHED"
        except BaseException as error:
            # Prefect cancels by an exception of its own that is no Exception.
            is_stopped = isinstance(error, Interrupted) or not isinstance(error, Exception)
            status = "KILLED" if is_stopped or started.is_stopping else "FAILED"
            reason = str(error)
            started.failure = error
            if isinstance(error, LightLMError) or not isinstance(error, Exception):
                raise

            started.check_stop()
            # Prefect keeps what it is given, causes and all.
            started.failure = keep_traceback(error, run.folder)
            raise started.failure from None
        finally:
            children.close()
            close_record(session, run.name, status, reason)
            end_run(run, status, sys.exc_info()[1])


def open_recorder(run: Run, name: str, params: Params, tags: Mapping[str, str]) -> Recorder:
    """Return the run's recorder, its start recorded; a continued run's record goes on."""
    deadline = time.monotonic() + RECORDER_SECONDS
    while True:
        try:
            recorder = Recorder(run.folder)
            break
        except BusyError:
            # Another run's outbox looks whether this one is over, for a moment.
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_SECONDS)

    description = f"{name}: still running; folder `{run.folder.name}`"
    tags = {**tags, **tag_folder(params.tracking.tensorboard)}
    recorder.start_run(
        name,
        params.tracking.experiment,
        tags,
        description,
        system_metrics=params.tracking.system_metrics,
    )

    if run.is_continued:
        recorder.set_tags(tags)
        recorder.describe(description)

    return recorder


def log_continuation(session: Session) -> None:
    """Log that the run is continued, and how much of its budget is left."""
    run = session.run
    ledger = session.ledger
    if not run.is_continued:
        return

    number = (run.decided(CONTINUED) or 0) + 1
    run.decide(CONTINUED, number)
    session.recorder.set_tags({"lightlm.continued": str(number)})
    session.log(
        f"Continuing the unfinished run {run.folder.name} ({run.spent.seconds:.0f} s of "
        f"{ledger.budget_seconds:.0f} s were used, "
        f"{max(0.0, ledger.elapsed_seconds - run.spent.seconds):.0f} s went into starting again, "
        f"{max(0.0, ledger.remaining_seconds):.0f} s are left); --fresh begins anew"
    )


def keep_traceback(error: Exception, folder: Path) -> UnexpectedError:
    """Keep the traceback of a bug in the run's folder; return a one-line error that names it."""
    path = folder / "traceback.txt"
    text = redact("".join(traceback.format_exception(error)))
    with suppress(StoreError):
        write_file(path, text.encode("utf-8", "replace"))
    LOGGER.error(text)
    why = redact(f"{type(error).__name__}: {error}")
    return UnexpectedError(f"a bug ended the run: {why}; the traceback is in {path}")


def close_record(
    session: Session, name: str, status: Literal["FINISHED", "FAILED", "KILLED"], reason: str
) -> None:
    """Give the run its end state in its record, and let the outbox send the rest."""
    recorder = session.recorder
    folder = session.folder
    if status != "FINISHED":
        recorder.describe(f"{name}: {status.lower()}; folder `{folder.name}`. {reason}")
        recorder.finish(status)

    is_healthy = session.outbox.is_answering
    seconds = session.allowance.seconds(
        RECORD,
        least=LEAST_RECORD_SECONDS if is_healthy else HOPELESS_SECONDS,
        most=MOST_SECONDS if status == "FINISHED" else STOPPED_SECONDS,
    )

    shipment = session.outbox.close(seconds)
    recorder.close()
    session.mirrors.close()
    if shipment.error and not shipment.num_unsent:
        session.log(f"MLflow took the run, but not all of it: {shipment.error}")
    elif shipment.num_unsent:
        session.log(
            f"MLflow did not take {shipment.num_unsent} records ({shipment.error}); they are kept "
            f"in {folder} and sent by the next run, or by `lightlm sync`"
        )


def end_run(run: Run, status: str, error: BaseException | None) -> None:
    """End the run in its journal, unless a repetition may end another way."""
    is_hopeless = isinstance(error, InputError | TrainingError)
    is_bug = isinstance(error, UnexpectedError | WorkerBug) and not run.has_checkpoint
    if status == "FINISHED" or is_hopeless or is_bug:
        run.end(status)
