"""Scores on tasks of lm-evaluation-harness, as its answer gives them and as a table shows them."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from lightlm.json_object import JsonObject

TABLES = "tasks/"
"""Folder of the tables among a run's artifacts, and beginning of the metrics' names."""

NO_FILTER = "none"


class TaskScore(BaseModel, frozen=True):
    """One metric of one task or group of tasks; `stderr` is the harness's bootstrap estimate."""

    task: str
    metric: str
    value: float
    stderr: float | None = None
    higher_is_better: bool | None = None
    num_documents: int | None = None
    num_fewshot: int | None = None
    task_version: str = ""

    @property
    def name(self) -> str:
        """The metric's name in MLflow."""
        return f"{TABLES}{self.task}/{self.metric}"

    def format(self) -> str:
        """Return the value, with its error where there is one."""
        return f"{self.value:.4f}" + ("" if self.stderr is None else f" ± {self.stderr:.4f}")


def read_answer(answer: Mapping[str, Any]) -> list[TaskScore]:
    """Return the scores of the harness's answer; what is no number is left out."""
    scores = []
    for task, values in (answer["results"] | answer.get("groups", {})).items():
        for key, value in values.items():
            metric, comma, filter_name = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            stderr = values.get(f"{metric}_stderr,{filter_name}")
            documents = answer.get("n-samples", {}).get(task, {})
            scores.append(
                TaskScore(
                    task=task,
                    metric=metric if filter_name == NO_FILTER else f"{metric}/{filter_name}",
                    value=value,
                    stderr=stderr if isinstance(stderr, int | float) else None,
                    higher_is_better=answer.get("higher_is_better", {}).get(task, {}).get(metric),
                    num_documents=documents.get("effective"),
                    num_fewshot=answer.get("n-shot", {}).get(task),
                    task_version=str(answer.get("versions", {}).get(task, "")),
                )
            )
    return scores


def make_table(scores: Sequence[TaskScore]) -> dict[str, list[Any]]:
    """Return the scores as columns."""
    rows: list[JsonObject] = [score.model_dump() for score in scores]
    return {name: [row[name] for row in rows] for name in TaskScore.model_fields}


def read_table(columns: Mapping[str, Sequence[Any]]) -> list[TaskScore]:
    """Return the scores of a table that `make_table` made."""
    rows = zip(*(columns[name] for name in TaskScore.model_fields), strict=True)
    return [
        TaskScore.model_validate(dict(zip(TaskScore.model_fields, row, strict=True)))
        for row in rows
    ]
