"""LIGHTLM_HOME is looked up where a process begins; everything else is given it."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

BEGINNINGS = {
    "flows/cli/doctor.py": "reports a home that cannot be used as one finding among others",
    "flows/generate.py": "a flow, in whatever process Prefect runs it",
    "flows/retrain.py": "a flow, in whatever process Prefect runs it",
    "flows/service/keeper.py": "the main of the process that keeps the service running",
    "flows/train.py": "a flow, in whatever process Prefect runs it",
    "lightlm/api.py": "what a person calls from Python",
    "lightlm/runs/alone.py": "the main of the process that lightlm.train and lightlm.plan start",
    "lightlm/store/home.py": "where it is defined",
    "lightlm/tracking/outbox_process.py": "the main of the process that sends to MLflow",
    "lightlm/training/distributed.py": "the main of a process that joins a run",
    "lightlm/training/worker.py": "the jobs of the worker's process",
}
"""Files that may look it up, and why; the files of flows/cli/commands may too."""


def find_callers() -> set[str]:
    paths = [path for folder in ("flows", "lightlm") for path in (ROOT / folder).rglob("*.py")]
    return {
        path.relative_to(ROOT).as_posix()
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "find_home"
    }


def test_home_is_looked_up_where_a_process_begins_and_passed_from_there() -> None:
    callers = {path for path in find_callers() if not path.startswith("flows/cli/commands/")}
    assert callers == set(BEGINNINGS)
