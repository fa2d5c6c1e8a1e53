"""A finished run as its folder shows it: curves, samples, scores by document, summary."""

from pathlib import Path

from pydantic import BaseModel, TypeAdapter

from lightlm.errors import InputError
from lightlm.evaluation.score import DocumentScores
from lightlm.evaluation.task_scores import TABLES, TaskScore, read_table
from lightlm.runs.folder import find_run, read_decisions
from lightlm.runs.summary import RunSummary
from lightlm.store.remembered import read_checked, read_object
from lightlm.tracking.record import Metrics, Table, Text, read_records
from lightlm.tracking.registry import PROMOTION_TAG
from lightlm.tracking.shipped import read_shipped

SUMMARY = "summary.json"


class FinishedRun(BaseModel, frozen=True):
    """A finished run: points over the fraction of its time, samples, documents, summary."""

    folder: Path
    summary: RunSummary
    losses: list[tuple[float, float]]
    scores: list[tuple[float, float]]
    samples: list[tuple[float, str]]
    documents: DocumentScores | None
    base: Path | None = None
    """The folder of the base that training started from."""
    tasks: list[TaskScore] = []
    """Scores on tasks, of `lightlm evaluate --tasks`; the newest of each."""


def find_finished_run(home: Path, name: str | None, model_name: str | None = None) -> Path:
    """Return the folder of a finished run: a path, a name or part of it, or None for the latest.

    With `model_name`, only runs of that registered model count.

    Raises:
        InputError: there is none such, or it has not finished.
    """
    kind = "finished run" if model_name is None else f"finished run of model {model_name}"
    return find_run(
        home,
        name,
        lambda folder: (
            (folder / SUMMARY).is_file() and model_name in (None, read_model_name(folder))
        ),
        kind,
    )


def read_model_name(folder: Path) -> str:
    """Return the registered model's name of a finished run; "" where its summary cannot be read."""
    return str(read_object(folder / SUMMARY).get("model_name", ""))


def describe_run(folder: Path) -> str:
    """Return "model notes, version 3, run 20260101-..." of a finished run."""
    summary = read_finished_run(folder).summary
    version = f"version {summary.model_version}" if summary.model_version else "not registered yet"
    return f"model {summary.model_name}, {version}, run {folder.name}"


def read_summary(folder: Path) -> RunSummary | None:
    """Return what a run wrote last into its folder, with the version that it may have got later;
    None where it has not, or it is damaged.
    """
    summary = read_checked(folder / SUMMARY, TypeAdapter(RunSummary))
    return None if summary is None else add_late_version(summary, folder)


def add_late_version(summary: RunSummary, folder: Path) -> RunSummary:
    """Return the summary with the version that the run got after it was written, where MLflow was
    slow or away; as it is where there is none, or it has one.
    """
    version = None if summary.model_version else read_shipped(folder).version
    if version is None:
        return summary
    return summary.model_copy(
        update={
            "run_id": version.run_id,
            "model_version": version.version,
            "aliases": list(version.aliases),
            "promotion": version.tags.get(PROMOTION_TAG, ""),
        }
    )


def read_finished_run(folder: Path) -> FinishedRun:
    """Return a finished run, read from its folder.

    Raises:
        InputError: the summary is not there or broken.
    """
    summary = read_summary(folder)
    if summary is None:
        raise InputError(
            f"{folder} holds no finished run ({SUMMARY} is missing or damaged); give another"
        )

    losses = []
    scores = []
    samples = []
    tasks: dict[str, TaskScore] = {}
    progress = {0: 0.0}

    for record, _ in read_records(folder):
        if isinstance(record, Metrics):
            values = record.values
            done = values.get("budget/progress")
            if done is not None:
                progress[record.step] = done
                losses.append((done, values["train/loss"]))
            if "validation/bits_per_byte" in values:
                done = _progress_at(progress, record.step)
                scores.append((done, values["validation/bits_per_byte"]))
        elif isinstance(record, Text) and record.sample_step is not None:
            samples.append((_progress_at(progress, record.sample_step), record.content))
        elif isinstance(record, Table) and record.path.startswith(TABLES):
            tasks |= {score.name: score for score in read_table(record.columns)}

    documents = base = None
    for path in folder.glob("run-*.journal"):
        decisions = read_decisions(path)
        kept = decisions.get("score")
        documents = DocumentScores.model_validate(kept["documents"]) if kept else documents
        started = decisions.get("base") or {}
        base = Path(started["base"]["folder"]) if "base" in started else base

    return FinishedRun(
        folder=folder,
        summary=summary,
        losses=losses,
        scores=scores,
        samples=samples,
        documents=documents,
        base=base,
        tasks=list(tasks.values()),
    )


def _progress_at(progress: dict[int, float], step: int) -> float:
    """Return the progress of the last step recorded at or before `step`."""
    return progress[max((known for known in progress if known <= step), default=0)]
