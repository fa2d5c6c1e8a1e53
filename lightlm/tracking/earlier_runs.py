"""Finished runs that MLflow knows, on this machine and others: predicted and reached scores."""

from pathlib import Path
from typing import TYPE_CHECKING

from lightlm.budget.history import REMEMBERED, History
from lightlm.json_object import JsonObject
from lightlm.store.remembered import parse_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

FINISHED_RUN_TAG = "lightlm.finished_run"
HARDWARE_TAG = "lightlm.hardware_id"


def fetch_finished_runs(client: "MlflowClient") -> list[JsonObject]:
    """Return what the newest finished runs of all experiments left, newest first.

    Raises:
        mlflow.exceptions.MlflowException: the server does not answer.
    """
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(
        experiments,
        filter_string=f"attributes.status = 'FINISHED' and tags.`{HARDWARE_TAG}` LIKE '%'",
        order_by=["attributes.start_time DESC"],
        max_results=REMEMBERED,
    )

    found = []
    for run in runs:
        record = parse_json(run.data.tags.get(FINISHED_RUN_TAG, ""))
        if isinstance(record, dict):
            found.append(record)

    return found


def bring_history(client: "MlflowClient", home: Path) -> None:
    """Put what MLflow knows under `home`, where the next plan reads it without waiting for a
    server.

    Raises:
        mlflow.exceptions.MlflowException: the server does not answer.
    """
    History(home).replace_mlflow_runs(fetch_finished_runs(client))
