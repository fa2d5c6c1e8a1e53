"""Sync: sends MLflow the records of earlier runs, completes registrations, and ends dead runs.

`lightlm sync` does it for all runs; a later run's outbox does it one folder at a time, while its
own run is idle. A run that is still recorded is left to its own outbox.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lightlm.errors import BusyError, LightLMError
from lightlm.redaction import first_line
from lightlm.store.lock import hold_lock, ignore
from lightlm.tracking.record import JOURNAL
from lightlm.tracking.recorder import LOCK as RECORDER_LOCK
from lightlm.tracking.registry import explain_failures, open_store
from lightlm.tracking.shipped import read_shipped
from lightlm.tracking.shipper import Shipper, count_unsent

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCK = ".outbox.lock"
"""Name of the lock that whoever ships a run's record holds."""

DIED = "its process ended without a word; the record ends where it died"

Outcome = Literal["told", "busy", "failed"]


@dataclass(frozen=True)
class Synced:
    """Outcome of one run: "told" to MLflow whole, "busy" because it is still recorded, or
    "failed".
    """

    folder: Path
    outcome: Outcome
    num_records: int
    version: str | None = None
    """models:/NAME/VERSION, where the run has one."""
    error: str | None = None


def list_pending(home: Path, own: Path | None = None) -> Iterator[Path]:
    """Yield the folders of runs, oldest first, that MLflow does not have to their end;
    never `own`.
    """
    runs = home / "runs"
    for folder in sorted(runs.iterdir()) if runs.is_dir() else []:
        if folder == own or not (folder / JOURNAL).exists():
            continue
        # A continued run may have died before its outbox saw MLflow: it ended once, and yet has
        # unsent records.
        if not read_shipped(folder).is_finished or count_unsent(folder):
            yield folder


def ship_to_end(folder: Path, client: "MlflowClient", home: Path) -> Shipper:
    """Send what MLflow does not have of a run whose process is gone, and give it an end; return its
    shipper.

    Raises:
        BusyError: another process records or ships this run.
        mlflow.exceptions.MlflowException: MLflow did not take it; the cursor stands behind what it
            took.
    """
    with hold_lock(folder / LOCK, wait=False):
        with hold_lock(folder / RECORDER_LOCK, wait=False):
            pass  # It is not recorded any more; a live run ships itself.
        shipper = Shipper(folder, client, home)
        shipper.ship()
        shipper.end("KILLED", DIED)
    return shipper


def sync(home: Path, report: Callable[[str], None] = ignore) -> list[Synced]:
    """Ship every pending run and return the outcomes; all are sent where each is "told".

    Raises:
        TrackingError: MLflow cannot be reached at all.
    """
    pending = list(list_pending(home))
    if not pending:
        return []

    with explain_failures(home):
        client = open_store(home)

    return [_sync_one(folder, client, home, report) for folder in pending]


def _sync_one(
    folder: Path, client: "MlflowClient", home: Path, report: Callable[[str], None]
) -> Synced:
    unsent = count_unsent(folder)
    report(f"{folder.name}: {unsent:,} records to send")
    try:
        state = ship_to_end(folder, client, home).state
    except BusyError as error:
        return Synced(folder, "busy", 0, error=str(error))
    except Exception as error:  # noqa: BLE001  (whatever MLflow raises, the record is kept and the next run has its turn)
        message = str(error) if isinstance(error, LightLMError) else first_line(error)
        return Synced(folder, "failed", unsent - count_unsent(folder), error=message)

    uri = None if state.version is None else state.version.uri
    return Synced(folder, "told", unsent, uri, state.refused)
