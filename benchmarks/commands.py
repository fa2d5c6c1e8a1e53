"""Whole commands, as a person runs them: `lightlm train` in a home of its own, by a stopwatch, with
its own report.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIGHTLM = [sys.executable, "-m", "lightlm_flows.cli"]


def run_train(
    home: Path,
    hours: float,
    dataset: str,
    *settings: str,
    prefix: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the summary of one run, with `stopwatch_seconds` around the whole command.

    `settings` are values of --set; `prefix` may pin the command to cores (taskset -c 0);
    `environment` adds variables.

    Raises:
        RuntimeError: the command failed; with what it said.
    """
    command = [
        *prefix,
        *LIGHTLM,
        "train",
        "--hours",
        str(hours),
        "--dataset",
        dataset,
        "--json",
        "--quiet",
    ]

    for setting in settings:
        command += ["--set", setting]
    started = time.perf_counter()
    variables = os.environ | {"LIGHTLM_HOME": str(home)} | dict(environment or {})
    done = subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )

    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}"
        )

    return json.loads(done.stdout) | {"stopwatch_seconds": round(seconds, 2)}


def append(path: Path, record: dict[str, Any]) -> None:
    """Add a line to a file of results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file of results."""
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if path.exists()
        else []
    )
