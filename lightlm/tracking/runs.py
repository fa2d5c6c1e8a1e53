"""The list of runs under LIGHTLM_HOME, read from their own records, whether MLflow answers or not.

It takes no lock, so it can neither hold up a run nor keep it from being continued.
"""

import math
from itertools import pairwise
from pathlib import Path

from pydantic import BaseModel

from lightlm.store.lock import find_holder
from lightlm.tracking.record import (
    JOURNAL,
    PLAN,
    AnyRecord,
    Dataset,
    Finish,
    Metrics,
    Params,
    Start,
    Tags,
    Text,
    read_records,
)
from lightlm.tracking.recorder import LOCK
from lightlm.tracking.shipped import read_shipped

ENDINGS = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "stopped"}
"""State by the status that a record ends with; the same command continues what stopped or died."""

LOSSES = 64
"""Values kept of a loss curve; more than a sparkline shows."""


class RecordedRun(BaseModel):
    """One run. Times in seconds since 1970, scores in bits per byte, losses in nats per token."""

    run: str
    name: str = ""
    state: str = "died"
    """running, finished, failed, stopped or died."""
    started_at: float = 0.0
    seconds: float = 0.0
    hours: float | None = None
    dataset: str = ""
    predicted_bits_per_byte: float | None = None
    bits_per_byte: float | None = None
    num_parameters: int | None = None
    shape: str = ""
    steps: int = 0
    losses: list[float] = []
    """At most LOSSES of them, averaged."""
    version: str | None = None
    """models:/NAME/VERSION, where it was registered."""
    mlflow_run_id: str | None = None


class ShownShape(BaseModel):
    """The numbers of a planned model that a list shows."""

    num_layers: int | None = None
    model_dim: int | None = None


class ShownCounts(BaseModel):
    """What a plan predicts for network and count tables together, where the version gets them."""

    is_mixed: bool = False
    predicted_bits_per_byte: float | None = None


class ShownPlan(BaseModel):
    """The numbers of a plan that a list shows; plans of other versions have them, too."""

    predicted_bits_per_byte: float | None = None
    num_parameters: int | None = None
    model: ShownShape = ShownShape()
    counts: ShownCounts | None = None

    @property
    def prediction(self) -> float | None:
        """What is predicted of the score that the run ends with."""
        best = self.counts if self.counts is not None and self.counts.is_mixed else self
        return best.predicted_bits_per_byte


def list_runs(home: Path, limit: int | None = None) -> list[RecordedRun]:
    """Return the runs that have a record, newest first; `limit` = the newest of them."""
    folders = sorted((path.parent for path in (home / "runs").glob(f"*/{JOURNAL}")), reverse=True)
    found = (read_recorded_run(folder) for folder in folders[:limit])
    return [run for run in found if run is not None]


def read_recorded_run(folder: Path) -> RecordedRun | None:
    """Return a run from its record; None where the record has no start, or cannot be read."""
    run = RecordedRun(run=folder.name)
    status: str | None = None
    ended_at = 0.0
    try:
        for record, _ in read_records(folder):
            ended_at = record.time_ms / 1000
            if isinstance(record, Start | Finish):  # a continued run starts again
                status = record.status if isinstance(record, Finish) else None
            _take(record, run)
    except (OSError, ValueError):  # a plan or settings of another version
        return None

    if not run.started_at:
        return None

    shipped = read_shipped(folder)
    run.mlflow_run_id = shipped.run_id
    run.version = None if shipped.version is None else shipped.version.uri
    run.seconds = run.seconds or max(0.0, ended_at - run.started_at)
    run.losses = thin(run.losses)
    if status is not None:
        run.state = ENDINGS[status]
    elif is_alive(folder):
        run.state = "running"
    return run


def _take(record: AnyRecord, run: RecordedRun) -> None:
    """Take a record's values into the run."""
    match record:
        case Start():
            run.started_at = run.started_at or record.time_ms / 1000
            run.name = record.name
            run.hours = record.hours
        case Params():
            run.hours = record.hours or run.hours
        case Tags():
            run.name = record.values.get("mlflow.runName", run.name)
        case Dataset() if "weight" not in record.values:  # of several the first
            run.dataset = str(record.values.get("name", ""))
        case Text() if record.path == PLAN:
            plan = ShownPlan.model_validate_json(record.content)
            run.predicted_bits_per_byte = plan.prediction
            run.num_parameters = plan.num_parameters
            run.shape = f"{plan.model.num_layers} x {plan.model.model_dim}"
        case Metrics(values=values):
            if math.isfinite(values.get("train/loss", math.nan)):
                run.losses.append(values["train/loss"])
                run.steps = max(run.steps, record.step)
            run.bits_per_byte = values.get("evaluation/bits_per_byte", run.bits_per_byte)
            run.seconds = values.get("budget/elapsed_seconds", run.seconds)
        case _:
            pass


def is_alive(folder: Path) -> bool:
    """Return whether the process that records a run still lives."""
    try:
        return find_holder(folder / LOCK) is not None
    except PermissionError:  # Windows: what is locked cannot be read
        return True


def thin(values: list[float], most: int = LOSSES) -> list[float]:
    """Return at most `most` values, each the mean of its share."""
    if len(values) <= most:
        return values
    edges = [index * len(values) // most for index in range(most + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
