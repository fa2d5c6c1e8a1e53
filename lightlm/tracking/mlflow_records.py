"""Records as MLflow's client takes them: metrics, params, tags, texts and data sets of one run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightlm.tracking.record import Dataset, Metrics, Params, Table
from lightlm.tracking.registry import is_local

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH_METRICS = 1000
BATCH_PARAMS = 100
"""Metrics and params per request: MLflow's limits."""

PARAM_CHARACTERS = 6000
"""Characters of a param's value: MLflow's limit."""


def find_experiment(client: "MlflowClient", name: str, home: Path) -> str:
    """Return the id of the experiment, which is created on first use.

    With a local store its artifacts get an absolute path under `home`.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            # Its name stays taken, and it takes no runs: no run would ever be sent again.
            client.restore_experiment(found.experiment_id)
        return found.experiment_id

    location = (home / "mlartifacts").as_uri() if is_local(home) else None
    try:
        # The kind chooses which pages MLflow shows first: training runs and their charts.
        return client.create_experiment(
            name, location, {"mlflow.experimentKind": "custom_model_development"}
        )
    except MlflowException:
        # Another run created it between the two calls.
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return found.experiment_id


def log_metrics(client: "MlflowClient", run_id: str, records: Sequence[Metrics]) -> None:
    """Send metrics with their own times and steps: MLflow drops those that it has already."""
    from mlflow.entities import Metric

    metrics = [
        Metric(name, value, record.time_ms, record.step)
        for record in records
        for name, value in record.values.items()
    ]
    for start in range(0, len(metrics), BATCH_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH_METRICS])


def log_params(client: "MlflowClient", run_id: str, record: Params) -> None:
    """Send params, cut to the length that MLflow takes."""
    from mlflow.entities import Param

    params = [Param(name, value[:PARAM_CHARACTERS]) for name, value in record.values.items()]
    for start in range(0, len(params), BATCH_PARAMS):
        client.log_batch(run_id, params=params[start : start + BATCH_PARAMS])


def log_table(client: "MlflowClient", run_id: str, record: Table) -> None:
    """Send a table, unless the run has it: MLflow would append the same rows to it."""
    folder = record.path.rpartition("/")[0] or None
    if record.path not in {one.path for one in client.list_artifacts(run_id, folder)}:
        client.log_table(run_id, dict(record.columns), record.path)


def log_dataset(client: "MlflowClient", run_id: str, record: Dataset) -> None:
    """Send the data set as the run's input for training."""
    from mlflow.entities import Dataset as MlflowDataset
    from mlflow.entities import DatasetInput, InputTag

    values = record.values
    counts = {name: value for name, value in values.items() if isinstance(value, int)}
    dataset = MlflowDataset(
        name=str(values["name"]),
        digest=str(values["digest"]),
        source_type="lightlm",
        source=json.dumps({"source": values["source"], "digest": values.get("source_digest", "")}),
        profile=json.dumps(counts),
    )

    client.log_inputs(
        run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])]
    )


def is_refused(error: Exception) -> bool:
    """Return whether MLflow would refuse the same request again, unlike a server that is away."""
    return getattr(error, "error_code", "") in (
        "INVALID_PARAMETER_VALUE",
        "BAD_REQUEST",
        "MALFORMED_REQUEST",
    )
