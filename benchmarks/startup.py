"""How long `lightlm train` takes to its first optimizer step, and what the orchestration costs,
item by item.

    .venv/bin/python benchmarks/startup.py [--hours 0.005] [--rounds 2] [--dataset FILE]

Whole commands in a home of their own: one that fills the store, then `--rounds` that find subset,
tokenizer, shards, databases and compiled code there, of which the quickest counts. The items are
the run's own ledger; the first step is when the run's record says that it ended. Fixed overhead:
everything that is neither data, tokenizer, shards, probe, compilation, training (its validations
and checkpoints with it) nor the final evaluation. Then the imports of the two processes alone, and
a cold `lightlm generate` of the version that was just trained, to its first character.
"""

import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from commands import LIGHTLM, ROOT, run_train
from results import Figure, parse_folder, report
from tokenization import make_text

WORK = (
    "probe",
    "compile",
    "data",
    "tokenizer",
    "shards",
    "training",
    "validation",
    "checkpoint",
    "final evaluation",
)
"""Stages of the ledger that are no overhead."""

IMPORTS = {
    "imports of the flow": "import lightlm_flows.train",
    "imports of the "
    "worker": "import lightlm.training.worker, lightlm.training.run, lightlm.training.timing",
    "imports of the outbox": "import mlflow",
    "imports of generation": "import lightlm.generation.text",
}
"""What each process imports, measured alone; in a run they overlap."""


def find_first_step(home: Path) -> float:
    """Return when, as time.time(), the first optimizer step of the newest run was recorded."""
    from lightlm.tracking.record import Metrics, read_records

    newest = max((home / "runs").glob("*/record.journal"), key=lambda path: path.stat().st_mtime)
    for record, _ in read_records(newest.parent):
        if isinstance(record, Metrics) and "train/loss" in record.values:
            return record.time_ms / 1000
    raise RuntimeError(f"{newest} tells of no training step; give more --hours")


def measure_train(home: Path, hours: float, dataset: str) -> dict[str, Any]:
    """Return seconds from the start of the command to the first step, fixed overhead, and the
    ledger.
    """
    started = time.time()
    before = os.times()
    summary = run_train(home, hours, dataset)
    after = os.times()
    overhead = {name: seconds for name, seconds in summary["ledger"].items() if name not in WORK}
    # The end of the process, its exit handlers and Prefect's last states are after the ledger's
    # last line.
    overhead["end of the process"] = max(
        0.0, summary["stopwatch_seconds"] - sum(summary["ledger"].values())
    )

    return {
        "first_step_seconds": find_first_step(home) - started,
        "overhead_seconds": sum(overhead.values()),
        "overhead": {name: round(seconds, 2) for name, seconds in overhead.items()},
        "ledger": {name: round(seconds, 2) for name, seconds in summary["ledger"].items()},
        "stopwatch_seconds": summary["stopwatch_seconds"],
        "cpu_seconds_of_children": round(
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system,
            2,
        ),
    }


def measure_import(code: str) -> dict[str, float]:
    """Return wall and CPU seconds of a Python that imports something and ends, the
    quicker of two.
    """
    taken = []
    for _ in range(2):
        started = time.perf_counter()
        before = os.times()
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
        after = os.times()
        cpu = (
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system
        )
        taken.append((time.perf_counter() - started, cpu))

    return {
        "wall": round(min(wall for wall, _ in taken), 2),
        "cpu": round(min(cpu for _, cpu in taken), 2),
    }


def measure_first_text(home: Path) -> float:
    """Return the seconds from the start of `lightlm generate` to its first character."""
    started = time.perf_counter()
    with subprocess.Popen(
        [*LIGHTLM, "generate", "The", "--max-new-tokens", "32", "--seed", "1"],
        cwd=ROOT,
        env=os.environ | {"LIGHTLM_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        select.select([process.stdout], [], [], 60)
        seconds = time.perf_counter() - started
        if not process.stdout.read():
            raise RuntimeError(f"generate wrote nothing: {process.stderr.read().decode()[-1000:]}")

    return seconds


def main() -> None:
    """Measure, show the items, report."""
    options = parse_folder(
        __doc__ or "",
        hours={"type": float, "default": 0.005},
        rounds={"type": int, "default": 2},
        dataset={"default": "", "help": "a file of your own; else 2 MB of documentation"},
    )

    home = Path(tempfile.mkdtemp(prefix="lightlm-startup-"))
    try:
        dataset = options.dataset or str(home / "text.txt")
        if not options.dataset:
            make_text(Path(dataset), 2_000_000, None)
        cold = measure_train(home, options.hours, dataset)
        warm = [measure_train(home, options.hours, dataset) for _ in range(options.rounds)]
        best = min(warm, key=lambda run: run["first_step_seconds"])
        text = [measure_first_text(home) for _ in range(3)]
        imports = {name: measure_import(code) for name, code in IMPORTS.items()}
    finally:
        shutil.rmtree(home, ignore_errors=True)

    print(
        "warm run, by stage:",
        ", ".join(f"{name} {seconds:.2f} s" for name, seconds in best["ledger"].items()),
    )
    print(
        "alone:",
        ", ".join(
            f"{name} {v['wall']:.2f} s ({v['cpu']:.2f} of CPU)" for name, v in imports.items()
        ),
    )

    least = min(run["overhead_seconds"] for run in warm)
    figures = [
        Figure(
            "train to its first step, warm store",
            best["first_step_seconds"],
            "s",
            12,
            "value",
            is_lower_better=True,
        ),
        Figure("fixed overhead of a run, warm store", least, "s", 8, "value", is_lower_better=True),
        Figure(
            "generate to its first text, cold process",
            min(text),
            "s",
            4,
            "value",
            is_lower_better=True,
        ),
    ]

    report(
        "startup",
        figures,
        options.out,
        {"cold": cold, "warm": warm, "imports": imports, "first_text_seconds": text},
    )


if __name__ == "__main__":
    main()
