"""What is added to a run in MLflow after it ended: its report, and scores of its version."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lightlm.errors import BusyError, TrackingError
from lightlm.tracking.mlflow_records import log_metrics, log_table
from lightlm.tracking.record import Metrics, Table
from lightlm.tracking.recorder import Recorder
from lightlm.tracking.registry import explain_failures, open_client
from lightlm.tracking.shipped import read_shipped
from lightlm.tracking.sync import ship_to_end
from lightlm.tracking.tags import MOST_CHARACTERS

FOLDER = "report"


def add_to_run(home: Path, run_id: str, files: Sequence[Path]) -> None:
    """Add files to the run's artifacts, under `report`; the same name replaces what was
    there.

    Raises:
        TrackingError: MLflow cannot be reached, or does not know the run.
    """
    with explain_failures(home):
        client = open_client(home)
        for path in files:
            client.log_artifact(run_id, str(path), FOLDER)


def tag_version(home: Path, name: str, number: str, tags: Mapping[str, str]) -> None:
    """Set tags of a registered version.

    Raises:
        TrackingError: MLflow cannot be reached, or does not know the version.
    """
    with explain_failures(home):
        client = open_client(home)
        for key, value in tags.items():
            client.set_model_version_tag(name, number, key, value[:MOST_CHARACTERS])


def add_records(home: Path, run_id: str, metrics: Metrics, table: Table | None = None) -> bool:
    """Add numbers, and perhaps a table, to a run that has ended; return whether MLflow has them
    now.

    A run of this home gets them in its own record first, which `lightlm sync` sends where MLflow is
    away. Of a run that another machine made, or that is still recorded, MLflow alone gets them.

    Raises:
        TrackingError: MLflow alone was to get them, and cannot be reached.
    """
    folder = find_run_folder(home, run_id)
    try:
        recorder = None if folder is None else Recorder(folder)
    except BusyError:  # its own process still records it, for a moment
        recorder = None
    if folder is None or recorder is None:
        with explain_failures(home):
            client = open_client(home)
            log_metrics(client, run_id, [metrics])
            if table is not None:
                log_table(client, run_id, table)
        return True

    try:
        recorder.log_metrics(metrics.values, metrics.step)
        if table is not None:
            recorder.log_table(table.columns, table.path)
    finally:
        recorder.close()
    try:
        with explain_failures(home):
            ship_to_end(folder, open_client(home), home)
    except (BusyError, TrackingError):
        return False
    return True


def find_run_folder(home: Path, run_id: str) -> Path | None:
    """Return the folder of the run that MLflow knows by `run_id`; None where it is not here."""
    folders = sorted((home / "runs").glob("*/"), reverse=True)
    return next((one for one in folders if read_shipped(one).run_id == run_id), None)
