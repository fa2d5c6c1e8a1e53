"""Files that are added to a run in MLflow after it ended: its report."""

from collections.abc import Sequence
from pathlib import Path

from lightlm.tracking.registry import explain_failures, open_client

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
