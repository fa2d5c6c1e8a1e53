"""The main of the harness's process: lm-evaluation-harness scores a Hugging Face folder on tasks.

The folder with tasks becomes the current folder: a task's data set is found there under its name
on the Hub, and so are the relative paths of a task's own data files.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightlm.child_process import Answers, leave, watch_parent
from lightlm.redaction import first_line
from lightlm.versions.harness import TasksRequest

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

NEAREST = 5
"""Names that are shown for one that does not exist."""


def find_tasks(names: Sequence[str], folder: Path | None) -> "TaskManager":
    """Return the harness's list of tasks, with those of `folder` in front; a folder that has them
    all is read alone: the harness's own list takes seconds.

    Raises:
        LookupError: there is no task of one of the names.
    """
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    found = None
    for with_own in (False, True):
        if folder is None and not with_own:
            continue
        found = TaskManager(include_path=folder, include_defaults=with_own)
        missing = [name for name in names if not found.match_tasks([name])]
        if not missing:
            return found

    assert found is not None
    import difflib

    near = difflib.get_close_matches(missing[0], found.all_tasks, NEAREST)
    where = "lm-evaluation-harness" if folder is None else f"{folder} or lm-evaluation-harness"
    raise LookupError(
        f"there is no task {missing[0]} in {where}; "
        + (f"near are {', '.join(near)}" if near else "`lm-eval ls tasks` lists its tasks")
    )


def score_folder(request: TasksRequest) -> dict[str, Any]:
    """Return the harness's answer, as JSON has it.

    Raises:
        LookupError: there is no such task.
        Exception: whatever the harness, a task or its data raise.
    """
    manager = find_tasks(request.tasks, request.task_folder)
    import lm_eval  # pyright: ignore[reportMissingImports]
    import torch

    started = time.monotonic()
    answer = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(request.folder), "dtype": "float32"},
        tasks=manager.match_tasks(list(request.tasks)),
        num_fewshot=request.num_fewshot,
        batch_size=request.batch_size,
        device="cuda" if torch.cuda.is_available() else "cpu",
        limit=request.limit,
        log_samples=False,
        task_manager=manager,
    )
    parts = ("results", "groups", "versions", "n-shot", "higher_is_better", "n-samples")
    return {name: answer[name] for name in parts if name in answer} | {
        "seconds": time.monotonic() - started,
        "device": str(answer["config"].get("device") or ""),
        "harness": lm_eval.__version__,
    }


def main(request: TasksRequest) -> None:
    """Be the process: score, and answer with the scores or with what is wrong."""
    answers = Answers()
    watch_parent(lambda: os._exit(1))
    if request.task_folder is not None:
        os.chdir(request.task_folder)
    try:
        answers.send({"answer": score_folder(request)})
    except LookupError as error:
        answers.send({"error": str(error.args[0]) if error.args else str(error)})
    except Exception as error:  # noqa: BLE001  (harness, tasks and data sets raise their own)
        answers.send({"error": f"{type(error).__name__}: {first_line(error)}"})


if __name__ == "__main__":
    main(TasksRequest.model_validate_json(sys.argv[1]))
    leave()
