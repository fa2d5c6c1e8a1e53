"""A finished run as its folder shows it: curves, samples, scores by document, summary."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from lightlm.errors import InputError
from lightlm.evaluation.score import DocumentScores
from lightlm.runs.folder import match_runs, read_decisions
from lightlm.runs.summary import RunSummary
from lightlm.store.home import find_home
from lightlm.store.remembered import read_checked, read_json
from lightlm.tracking.record import Metrics, Text, read_records

SUMMARY = "summary.json"


class FinishedRun(BaseModel):
    """A finished run: points over the fraction of its time, samples, documents, summary."""

    model_config = ConfigDict(frozen=True)

    folder: Path
    summary: RunSummary
    losses: list[tuple[float, float]]
    scores: list[tuple[float, float]]
    samples: list[tuple[float, str]]
    documents: DocumentScores | None


def find_finished_run(name: str | None, model_name: str | None = None) -> Path:
    """Return the folder of a finished run: a path, a name or part of it, or None for the latest.

    With `model_name`, only runs of that registered model count.

    Raises:
        InputError: there is none such, or it has not finished.
    """
    runs = find_home() / "runs"
    finished = sorted(path.parent for path in runs.glob(f"*/{SUMMARY}"))
    if model_name is not None:
        finished = [folder for folder in finished if read_model_name(folder) == model_name]
        if not finished:
            raise InputError(
                f"no finished run of model {model_name} in {runs}; `lightlm runs` lists all"
            )

    if name is None:
        if not finished:
            raise InputError(f"no finished run in {runs}; run `lightlm train` first")
        return finished[-1]

    if (Path(name) / SUMMARY).is_file():
        return Path(name)

    matching = match_runs(finished, name)
    if len(matching) != 1:
        count = f"{len(matching)} finished runs begin" if matching else "no finished run begins"
        raise InputError(
            f"{count} with {name!r} in {runs}; give a whole name, as `lightlm runs` lists them"
        )

    return matching[0]


def read_model_name(folder: Path) -> str:
    """Return the registered model's name of a finished run; "" where its summary cannot be read."""
    summary = read_json(folder / SUMMARY)
    return str(summary.get("model_name", "")) if isinstance(summary, dict) else ""


def describe_run(folder: Path) -> str:
    """Return "model notes, version 3, run 20260101-..." of a finished run."""
    summary = read_run(folder).summary
    version = f"version {summary.model_version}" if summary.model_version else "not registered yet"
    return f"model {summary.model_name}, {version}, run {folder.name}"


def read_summary(folder: Path) -> RunSummary | None:
    """Return what a run wrote last into its folder; None where it has not, or it is damaged."""
    return read_checked(folder / SUMMARY, TypeAdapter(RunSummary))


def read_run(folder: Path) -> FinishedRun:
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

    documents = None
    for path in folder.glob("run-*.journal"):
        kept = read_decisions(path).get("score")
        documents = DocumentScores.model_validate(kept["documents"]) if kept else documents

    return FinishedRun(
        folder=folder,
        summary=summary,
        losses=losses,
        scores=scores,
        samples=samples,
        documents=documents,
    )


def _progress_at(progress: dict[int, float], step: int) -> float:
    """Return the progress of the last step recorded at or before `step`."""
    return progress[max((known for known in progress if known <= step), default=0)]
