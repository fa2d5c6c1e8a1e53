"""The outbox's process: ships a run's record to MLflow again and again, until MLflow has it all or is given up.

Owns retries, the end of runs that died without one, and what earlier runs could not send. Started by outbox.Outbox.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightlm.errors import BusyError, LightLMError
from lightlm.store.home import find_home
from lightlm.store.lock import hold_lock
from lightlm.tracking.recorder import JOURNAL
from lightlm.tracking.registry import create_database, first_line, open_client
from lightlm.tracking.shipper import STATE, Shipper
from lightlm.tracking.system_metrics import SystemSampler

POLL_SECONDS = 0.1
FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.5, 5.0
GRACE_SECONDS = 10.0
"""How long a server that does not answer is tried after the run's end."""

NICENESS = 5
"""Below the training's priority; importing MLflow takes 2 s of a core."""


def answer(record: dict[str, Any]) -> None:
    """Tell the parent, if it still listens."""
    try:
        sys.stdout.write(json.dumps(record) + "\n")
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        return


def follow(shipper: Shipper, parent_gone: threading.Event, pending: Iterator[Path]) -> str | None:
    """Ship until the run's finish is shipped, or its parent is gone and the grace is over; return the last error."""
    sampler = SystemSampler()
    backoff, given_up_at, error, is_warm = FIRST_BACKOFF_SECONDS, None, None, False
    while not shipper.state["is_finished"]:
        if parent_gone.is_set() and given_up_at is None:
            given_up_at = time.monotonic() + GRACE_SECONDS
        try:
            moved = shipper.ship()
            if shipper.state["run_id"] is not None and shipper.state.get("system_metrics", True):
                sampler.send(shipper.client, shipper.run_id)
            error, backoff = None, FIRST_BACKOFF_SECONDS
        except Exception as caught:  # noqa: BLE001  (whatever MLflow raises, the record is kept and tried again)
            error = first_line(caught)
            sys.stderr.write(f"{type(caught).__name__}: {caught}\n")
            time.sleep(backoff)
            backoff = min(2 * backoff, LONGEST_BACKOFF_SECONDS)
            moved = False
        if not moved and error is None:
            if parent_gone.is_set() and not shipper.count_unsent():
                shipper.end("KILLED")
                break
            if not is_warm:
                warm_up()
                is_warm = True
            else:
                ship_pending(shipper, pending)
            parent_gone.wait(POLL_SECONDS)
        if given_up_at is not None and time.monotonic() > given_up_at:
            break
    return error


def warm_up() -> None:
    """Import now what registration and the plot need at the end, where every second is the run's."""
    import matplotlib.backends.backend_agg
    import mlflow.pyfunc

    import lightlm.tracking.registration  # noqa: F401

    del matplotlib, mlflow


def ship_pending(shipper: Shipper, pending: Iterator[Path]) -> None:
    """Send what an earlier run could not, one run at a time; a run that died gets its end state."""
    folder = next(pending, None)
    if folder is None:
        return
    try:
        with hold_lock(folder / ".outbox.lock", wait=False):
            earlier = Shipper(folder, shipper.client, shipper.home)
            earlier.ship()
            earlier.end("KILLED")
    except (BusyError, LightLMError):
        return
    except Exception as error:  # noqa: BLE001  (an old run must not hurt this one)
        sys.stderr.write(f"{folder}: {error}\n")


def list_pending(home: Path, own: Path) -> Iterator[Path]:
    """Yield the folders of earlier runs that MLflow does not have to their end."""
    runs = home / "runs"
    for folder in sorted(runs.iterdir()) if runs.is_dir() else []:
        if folder == own or not (folder / JOURNAL).exists():
            continue
        try:
            state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            state = {}
        if not state.get("is_finished"):
            yield folder


def main(folder: Path) -> None:
    """Be the process: ship `folder` until its run is over."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent_gone = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: parent_gone.set())
    threading.Thread(target=_watch_parent, args=(parent_gone,), daemon=True).start()
    home = find_home()
    with hold_lock(folder / ".outbox.lock"):
        client, error = None, None
        try:
            # The first use of a database creates its tables; two processes at once would collide.
            with hold_lock(home / ".mlflow.lock"):
                create_database(home)
                client = open_client(home)
                client.search_experiments(max_results=1)
        except Exception as caught:  # noqa: BLE001  (a server that is away: the loop below tries again)
            error = first_line(caught)
            sys.stderr.write(f"{type(caught).__name__}: {caught}\n")
        if client is None:
            answer({"done": {"num_unsent": 1, "error": error}})
            return
        shipper = Shipper(folder, client, home, tell=answer)
        error = follow(shipper, parent_gone, list_pending(home, folder))
        answer({"run_id": shipper.state["run_id"]})
        answer({"done": {"num_unsent": shipper.count_unsent(), "error": error}})


def _watch_parent(parent_gone: threading.Event) -> None:
    sys.stdin.read()
    parent_gone.set()
