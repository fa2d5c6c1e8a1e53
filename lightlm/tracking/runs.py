"""The runs under LIGHTLM_HOME as their own records tell of them, whether MLflow answers or not.

Owns what a record says at a glance: when, on what, how it ended, what was foreseen and reached.
Reads and nothing else: it takes no lock, so it can neither hold up a run nor keep it from being
continued.
"""

import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import BaseModel, ConfigDict

from lightlm.store.journal import read_journal
from lightlm.store.remembered import parse_json
from lightlm.tracking.recorder import JOURNAL, LOCK
from lightlm.tracking.shipped import read_state

State = Literal["running", "finished", "failed", "stopped", "died"]

ENDINGS: dict[str, State] = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "stopped"}
"""What a record's last line says; the same command goes on with what was stopped or died."""

LOSSES = 64
"""Values kept of a loss curve; more than a sparkline shows."""

SLACK_SECONDS = 2.0
"""Between a process's start and its lock's time, as clocks of kernels and file systems differ."""


class RecordedRun(BaseModel):
    """One run. Times in seconds since 1970, scores in bits per byte, losses in nats a token,
    thinned.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    run: str
    name: str
    state: State
    started_at: float
    seconds: float
    hours: float | None = None
    dataset: str = ""
    predicted_bits_per_byte: float | None = None
    bits_per_byte: float | None = None
    num_parameters: int | None = None
    shape: str = ""
    steps: int = 0
    losses: list[float] = []
    version: str | None = None
    """models:/NAME/VERSION, where it was registered."""
    mlflow_run_id: str | None = None


def list_runs(home: Path, limit: int | None = None) -> list[RecordedRun]:
    """Return the runs that have a record, newest first; `limit` = the newest of them."""
    folders = sorted((path.parent for path in (home / "runs").glob(f"*/{JOURNAL}")), reverse=True)
    found = (read_run(folder) for folder in folders[:limit])
    return [run for run in found if run is not None]


def read_run(folder: Path) -> RecordedRun | None:
    """Return what a run's record says; None where it has no beginning, or cannot be read."""
    facts: dict[str, Any] = {"run": folder.name}
    losses: list[float] = []
    status: str | None = None
    ended_at = 0.0

    try:
        for record, _ in read_journal(folder / JOURNAL):
            ended_at = float(record.get("time_ms", 0)) / 1000
            status = _take(record, facts, losses, status)
    except (OSError, TypeError, ValueError):  # a record of another version, or another hand's
        return None

    if "name" not in facts:
        return None

    state: State = (
        ENDINGS.get(status, "failed") if status else "running" if is_alive(folder) else "died"
    )
    facts |= read_shipped(folder)
    seconds = facts.pop("spent", None) or max(0.0, ended_at - facts["started_at"])

    return RecordedRun(state=state, seconds=seconds, losses=thin(losses), **facts)


def is_alive(folder: Path) -> bool:
    """Return whether the process that records a run still lives.

    The kernel's lock would say it, too, but to ask for it is to hold it for a moment, in which a
    run that is being continued would be refused. A process that began after its number was written
    is another one.
    """
    lock = folder / LOCK
    try:
        holder = int(lock.read_text("ascii"))
        written_at = lock.stat().st_mtime
        process = psutil.Process(holder)
        is_same = process.create_time() <= written_at + SLACK_SECONDS
        return is_same and process.status() != psutil.STATUS_ZOMBIE
    except PermissionError:  # Windows: what is locked cannot be read
        return True
    except (OSError, ValueError, psutil.Error):
        return False


def read_shipped(folder: Path) -> dict[str, str]:
    """Return the ids that MLflow gave a run, as far as it was told."""
    state = read_state(folder)
    found = {"mlflow_run_id": state["run_id"]} if state["run_id"] else {}
    if version := state["version"]:
        found["version"] = f"models:/{version['name']}/{version['version']}"
    return found


def find_hours(name: str) -> float | None:
    """Return the hours in a run's name, "train-0.1h-wikitext"; None where it has none."""
    found = re.search(r"-(\d[\d.]*(?:e[+-]?\d+)?)h-", name)
    return float(found[1]) if found and found[1].count(".") <= 1 else None


def thin(values: list[float], most: int = LOSSES) -> list[float]:
    """Return at most `most` values, each the mean of its share."""
    if len(values) <= most:
        return values
    edges = [index * len(values) // most for index in range(most + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


def _take(
    record: dict[str, Any], facts: dict[str, Any], losses: list[float], status: str | None
) -> str | None:
    """Take a record into the facts; return how the run stands after it."""
    kind = record.get("kind")
    values = record.get("values", {})
    if kind == "start":
        name = str(record.get("name", ""))
        facts.setdefault("started_at", float(record.get("time_ms", 0)) / 1000)
        facts |= {"name": name, "hours": find_hours(name)}
        return None  # a continued run begins again

    if kind == "finish":
        return str(record.get("status", "FAILED"))
    if kind == "tags" and "mlflow.runName" in values:
        facts["name"] = str(values["mlflow.runName"])
    elif kind == "dataset":
        facts["dataset"] = str(values.get("name", ""))
    elif kind == "text" and record.get("path") == "plan.json":
        plan = parse_json(record.get("content", "{}"))
        plan = plan if isinstance(plan, dict) else {}
        model = plan.get("model")
        model = model if isinstance(model, dict) else {}
        facts["predicted_bits_per_byte"] = plan.get("predicted_bits_per_byte")
        facts["num_parameters"] = plan.get("num_parameters")
        facts["shape"] = f"{model.get('num_layers')} x {model.get('model_dim')}"
    elif kind == "metrics":
        if math.isfinite(values.get("train/loss", math.nan)):
            losses.append(values["train/loss"])
            facts["steps"] = max(facts.get("steps", 0), int(record.get("step", 0)))
        facts["bits_per_byte"] = values.get("evaluation/bits_per_byte", facts.get("bits_per_byte"))
        facts["spent"] = values.get("budget/elapsed_seconds", facts.get("spent"))

    return status
