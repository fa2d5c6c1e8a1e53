"""The outbox's process: ships a run's record to MLflow, with retries.

It also ends runs that died without an end, and ships what earlier runs could not send.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lightlm.child_process import Answers, Message, watch_parent
from lightlm.errors import BusyError
from lightlm.redaction import first_line, redact
from lightlm.store.home import find_home
from lightlm.store.lock import hold_lock
from lightlm.tracking.record import is_finished
from lightlm.tracking.registry import open_store
from lightlm.tracking.shipper import Shipper, count_unsent
from lightlm.tracking.sync import DIED, LOCK, list_pending, ship_to_end
from lightlm.tracking.system_metrics import SystemSampler
from lightlm.tracking.tensorboard import start_following

if TYPE_CHECKING:
    from mlflow import MlflowClient

Result = TypeVar("Result")

POLL_SECONDS = 0.1
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 5.0
GRACE_SECONDS = 10.0
"""Seconds after the run's end in which a server that does not answer is tried again."""

SHORT_TIMEOUTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
}
"""Timeouts of MLflow's client. This process retries by itself; MLflow's own retries, and the
minutes of a Retry-After, would hide from the parent that a server is away.
"""

MOST_MEMORY_BYTES = 4 * 2**30
"""Bytes that this process may allocate: an endless answer fails before it takes training's memory.
"""

NICENESS = 5
"""Niceness of work that nothing waits for, below training's priority: importing MLflow takes 2 s
of a core. Registration, which the run's end waits for, keeps the usual priority: with two busy
neighbors it took three times as long without.
"""


TENSORBOARD_SECONDS = 2.0
"""Seconds that TensorBoard's files get to be closed, after MLflow has the run."""


class Patience:
    """Retries of MLflow: while the run goes on and GRACE_SECONDS after, with growing pauses."""

    def __init__(self, parent_gone: threading.Event, send: Callable[[Message], None]) -> None:
        self.parent_gone = parent_gone
        self._send = send
        self.error: str | None = None
        self._has_answered = False
        self._backoff = FIRST_BACKOFF_SECONDS
        self._ends_at: float | None = None

    def is_over(self) -> bool:
        """Return whether the parent is gone, MLflow does not answer, and the grace is over."""
        # slow is not away: who has less time than this needs ends this process
        if self.error is None:
            return False
        if self.parent_gone.is_set() and self._ends_at is None:
            self._ends_at = time.monotonic() + GRACE_SECONDS
        return self._ends_at is not None and time.monotonic() > self._ends_at

    def fail(self, error: Exception) -> None:
        """Remember what went wrong, and wait before the next try; the end of the run is a reason to
        try at once.
        """
        self.error = first_line(error)
        self._send({"trouble": self.error})
        complain(error)
        if self.parent_gone.is_set():
            time.sleep(self._backoff)
        else:
            self.parent_gone.wait(self._backoff)
        self._backoff = min(2 * self._backoff, LONGEST_BACKOFF_SECONDS)

    def succeed(self) -> None:
        """Forget earlier failures; the first answer of all is worth a line, too."""
        if self.error is not None or not self._has_answered:
            self._send({"trouble": None})
        self.error = None
        self._has_answered = True
        self._backoff = FIRST_BACKOFF_SECONDS


def complain(error: BaseException) -> None:
    """Put an error into the log, without secrets."""
    sys.stderr.write(redact(f"{type(error).__name__}: {error}\n"))
    sys.stderr.flush()


def connect(home: Path, patience: Patience) -> "MlflowClient | None":
    """Return a client whose store has answered; None if it never did."""
    while not patience.is_over():
        try:
            client = open_store(home)
        except Exception as error:  # noqa: BLE001  (whatever MLflow raises, the run goes on and it is tried again)
            patience.fail(error)
        else:
            patience.succeed()
            return client

    return None


def follow(shipper: Shipper, patience: Patience, pending: Iterator[Path]) -> None:
    """Ship until the run's finish is shipped, or its parent is gone and the grace is over."""
    sampler = SystemSampler()
    is_warm = False
    while not shipper.is_over() and not patience.is_over():
        is_last_look = patience.parent_gone.is_set()
        try:
            moved = shipper.ship()
            if shipper.state.run_id is not None and shipper.state.system_metrics:
                sampler.send(shipper.client, shipper.run_id)
            if not moved and is_last_look:
                shipper.end("KILLED", DIED)
                return
        except Exception as error:  # noqa: BLE001  (whatever MLflow raises, the record is kept and tried again)
            patience.fail(error)
            continue
        patience.succeed()
        if moved:
            continue
        if not is_warm:
            yield_to_training(warm_up)
            yield_to_training(lambda: learn(shipper))
            is_warm = True
        else:
            yield_to_training(lambda: ship_pending(shipper, pending))
        patience.parent_gone.wait(POLL_SECONDS)


def yield_to_training(work: Callable[[], Result]) -> Result:
    """Return what `work` returns, done at a lower priority: on Linux, where each thread has its
    own.
    """
    if sys.platform != "linux":
        return work()

    done: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001  (it is raised below, where it belongs)
            errors.append(error)

    thread = threading.Thread(target=run, name="yielding")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]

    return done[0]


def warm_up() -> None:
    """Import and look up now what registration and the plot need at the end, where every second is
    the run's.
    """
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401

    from lightlm.tracking.registration import rehearse
    from lightlm.tracking.shipper import pin_requirements

    try:
        rehearse(pin_requirements())
    except Exception as error:  # noqa: BLE001  (registration itself says what is wrong)
        complain(error)


def learn(shipper: Shipper) -> None:
    """Fetch finished runs from MLflow for the next plan, while this run has nothing to send."""
    from lightlm.tracking.earlier_runs import bring_history

    try:
        bring_history(shipper.client, shipper.home)
    except Exception as error:  # noqa: BLE001  (whatever MLflow raises, the run goes on without it)
        complain(error)


def ship_pending(shipper: Shipper, pending: Iterator[Path]) -> None:
    """Send what an earlier run could not, one run at a time; a run that died gets its end state."""
    folder = next(pending, None)
    if folder is None:
        return
    try:
        ship_to_end(folder, shipper.client, shipper.home)
    except BusyError:
        return
    except Exception as error:  # noqa: BLE001  (an old run must not hurt this one)
        complain(error)


def bound_memory() -> None:
    """Limit this process to MOST_MEMORY_BYTES, on Linux."""
    if sys.platform == "linux":
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        most = MOST_MEMORY_BYTES if hard < 0 else min(MOST_MEMORY_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def main(folder: Path) -> None:
    """Be the process: ship `folder` until its run is over."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name, value in SHORT_TIMEOUTS.items():
        os.environ.setdefault(name, value)
    bound_memory()
    answers = Answers()
    parent_gone = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: parent_gone.set())
    watch_parent(parent_gone.set)
    home = find_home()
    patience = Patience(parent_gone, answers.send)
    is_over = threading.Event()
    following = start_following(folder, is_over, complain)

    try:
        ship_run(folder, home, patience, answers)
    finally:
        is_over.set()
        following.join(TENSORBOARD_SECONDS)


def ship_run(folder: Path, home: Path, patience: Patience, answers: Answers) -> None:
    """Ship `folder` to MLflow until its run is over, and answer how that ended."""
    with hold_lock(folder / LOCK):
        client = yield_to_training(lambda: connect(home, patience))
        if client is None:
            answers.send({"done": {"num_unsent": count_unsent(folder), "error": patience.error}})
            return
        shipper = Shipper(folder, client, home, answers.send, patience.succeed)
        # Its parent lives: an end that another process gave the run was too early. An end that the
        # run recorded itself is one.
        shipper.state.is_finished &= is_finished(folder)
        follow(shipper, patience, list_pending(home, folder))
        answers.send({"run_id": shipper.state.run_id})
        error = patience.error or shipper.state.refused
        answers.send({"done": {"num_unsent": count_unsent(folder), "error": error}})
