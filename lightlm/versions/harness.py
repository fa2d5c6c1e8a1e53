"""A registered version on tasks of lm-evaluation-harness: checked, scored in a process, recorded.

The harness opens the version's Hugging Face folder with its own class for transformers, in fp32:
the network alone, without count tables.
"""

import importlib.util
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel

from lightlm.child_process import end_child, read_answers, start_child
from lightlm.errors import InputError, StoreError, TaskError, TrackingError
from lightlm.evaluation.task_scores import TABLES, TaskScore, make_table, read_answer
from lightlm.model.families import read_config
from lightlm.tracking.record import Metrics, Table
from lightlm.tracking.registry import ModelVersion, download
from lightlm.tracking.reports import add_records

LARGEST_BATCH = 32
MOST_LOGITS = 2**27
"""Sequences that the harness scores at a time, and their logits: 0.5 GB in fp32, and it holds
about three copies.
"""

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
"""Environment in which a folder with tasks is all there is: nothing is asked of the Hub."""

END_SECONDS = 1.0


class TasksRequest(BaseModel, frozen=True):
    """What the harness's process gets."""

    folder: Path
    tasks: tuple[str, ...]
    task_folder: Path | None = None
    num_fewshot: int | None = None
    limit: int | None = None
    batch_size: int = 1


class TasksResult(BaseModel, frozen=True):
    """The scores of a version, and what became of them in MLflow."""

    model_name: str
    model_version: str
    scores: list[TaskScore]
    seconds: float
    device: str
    harness: str
    note: str


def check_tasks(tasks: str, task_folder: Path | None) -> tuple[str, ...]:
    """Return the names of the tasks, before anything slow.

    Raises:
        InputError: there is none, the folder is none, or the harness is missing.
    """
    names = tuple(dict.fromkeys(name.strip() for name in tasks.split(",") if name.strip()))
    if not names:
        raise InputError(f"--tasks is {tasks!r}; give names of tasks, such as blimp,lambada_openai")
    if task_folder is not None and not task_folder.is_dir():
        raise InputError(
            f"--task-folder is {task_folder}, which is no folder; give one with the YAML files of "
            "tasks, or with data sets under their names on the Hub"
        )
    if importlib.util.find_spec("lm_eval") is None:
        raise InputError(
            "--tasks wants the package lm-eval; run `pip install 'lightlm[tasks]'`, or score a "
            "text of your own: `lightlm evaluate a.txt`"
        )
    return names


def score_tasks(
    home: Path,
    version: ModelVersion,
    tasks: Sequence[str],
    *,
    task_folder: Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
) -> TasksResult:
    """Return the scores of a version, which MLflow gets as metrics and a table of its run.

    The harness's own lines go to this process's standard error.

    Raises:
        TaskError: there is no such task, its data cannot be read, or the harness failed.
    """
    folder = download(home, version)
    config = read_config(folder)
    answer = run_harness(
        TasksRequest(
            folder=folder.absolute(),
            tasks=tuple(tasks),
            task_folder=None if task_folder is None else task_folder.absolute(),
            num_fewshot=num_fewshot,
            limit=limit,
            batch_size=choose_batch_size(config.vocab_size, config.context_length),
        ),
    )
    scores = read_answer(answer)
    return TasksResult(
        model_name=version.name,
        model_version=version.version,
        scores=scores,
        seconds=answer["seconds"],
        device=answer["device"],
        harness=answer["harness"],
        note=record_scores(home, version, scores),
    )


def choose_batch_size(vocab_size: int, context_length: int) -> int:
    """Return how many sequences of the full context are scored at a time."""
    return max(1, min(LARGEST_BATCH, MOST_LOGITS // (vocab_size * context_length)))


def run_harness(request: TasksRequest) -> dict:
    """Return the harness's answer, from a process of its own.

    Raises:
        TaskError: it gave none.
    """
    process = start_child(
        "lightlm.versions.harness_process",
        request.model_dump_json(),
        log=None,
        environment=OFFLINE if request.task_folder is not None else {},
    )
    try:
        last = {}
        for message in read_answers(process):
            last = message
    finally:
        end_child(process, END_SECONDS)

    if "answer" in last:
        return last["answer"]
    names = ",".join(request.tasks)
    why = last.get("error") or f"its process ended with exit code {process.returncode}"
    raise TaskError(f"--tasks {names}: {why}")


def record_scores(home: Path, version: ModelVersion, scores: Sequence[TaskScore]) -> str:
    """Add the scores to the version's run as metrics and a table; return where they are."""
    path = f"{TABLES}{datetime.now(UTC):%Y%m%d-%H%M%S-%f}.json"
    metrics = Metrics(
        time_ms=int(1000 * time.time()), step=0, values={one.name: one.value for one in scores}
    )
    table = Table(path=path, columns=make_table(scores))
    if not version.run_id:
        return "not in MLflow: the version names no run"
    try:
        is_sent = add_records(home, version.run_id, metrics, table)
    except (TrackingError, StoreError) as error:  # what was measured is shown all the same
        return f"not in MLflow: {error}"
    if is_sent:
        return f"also in MLflow, as metrics and as {path} of the run's artifacts"
    return "kept in the run's record; `lightlm sync` sends it to MLflow"
