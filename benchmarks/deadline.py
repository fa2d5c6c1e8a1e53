"""Is the deadline kept, and is the time used? Whole commands over budgets and texts, with a cold
and a warm store.

    .venv/bin/python benchmarks/deadline.py --dataset FOLDER --dataset FILE [--hours 0.005 --hours
    0.01 ...]

Every run is a line of bench-results/deadline.jsonl; runs that are there are not done again. Cold: a
new LIGHTLM_HOME, so that tokenizer, shards, compilation and MLflow's database are made anew. Warm:
the same home once more. The table shows each run against the promise: at most max(2 s, 1 %) late by
the ledger and max(4 s, 2 %) by a stopwatch around the command, at least 97 % used, learning rate
annealed to (nearly) zero, score within the plan's interval.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from commands import ROOT, append, read, run_train

RESULTS = ROOT / "bench-results" / "deadline.jsonl"
HOURS = (0.005, 0.01, 0.02, 0.05, 0.1)


def measure(dataset: str, hours: float) -> None:
    """Make the cold run and the warm run of a budget, unless they are there."""
    done = {(r["dataset"], r["hours"], r["store"]) for r in read(RESULTS)}
    name = Path(dataset).name
    if {(name, hours, "cold"), (name, hours, "warm")} <= done:
        return

    home = Path(tempfile.mkdtemp(prefix="lightlm-deadline-"))
    try:
        for store in ("cold", "warm"):
            summary = run_train(home, hours, dataset)
            if (name, hours, store) not in done:
                record = describe(summary) | {"dataset": name, "hours": hours, "store": store}
                append(RESULTS, record)
                print(line(record), flush=True)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def describe(summary: dict[str, Any]) -> dict[str, Any]:
    """Return what the table needs of a run."""
    plan = summary["plan"]
    budget = summary["budget_seconds"]
    bits = summary["bits_per_byte"]
    return {
        "budget_seconds": budget,
        "ledger_seconds": summary["elapsed_seconds"],
        "stopwatch_seconds": summary["stopwatch_seconds"],
        "used": summary["elapsed_seconds"] / budget,
        "is_kept_by_ledger": summary["elapsed_seconds"] - budget <= max(2.0, 0.01 * budget),
        "is_kept_by_stopwatch": summary["stopwatch_seconds"] - budget <= max(4.0, 0.02 * budget),
        "final_learning_rate_factor": summary["final_learning_rate_factor"],
        "bits_per_byte": bits,
        "is_whole": summary["score"]["is_whole"],
        "predicted": plan["predicted_bits_per_byte"],
        "is_as_predicted": plan["predicted_low"] <= bits <= plan["predicted_high"],
        "shape": summary["shape"],
        "tokens": summary["tokens"],
        "ledger": summary["ledger"],
    }


def line(r: dict[str, Any]) -> str:
    """Return a run in a line."""
    late = "kept" if r["is_kept_by_ledger"] and r["is_kept_by_stopwatch"] else "LATE"
    return (
        f"{r['dataset']:18} {r['hours']:6g} h {r['store']:4}  ledger {r['ledger_seconds']:6.1f}  "
        "stopwatch "
        f"{r['stopwatch_seconds']:6.1f} of {r['budget_seconds']:5.0f} s  {late}  used "
        f"{r['used']:6.1%}  "
        f"rate ends at {r['final_learning_rate_factor']:.3f}  {r['bits_per_byte']:.3f} bits per "
        "byte"
        f"{'' if r['is_whole'] else ' (a prefix)'}, foreseen {r['predicted']:.3f}"
        f"{'' if r['is_as_predicted'] else ' (outside)'}  {r['shape']}"
    )


def main() -> None:
    """Read the command line, measure what is missing, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", action="append", required=True)
    parser.add_argument("--hours", action="append", type=float)
    given = parser.parse_args()
    for hours in given.hours or HOURS:
        for dataset in given.dataset:
            measure(dataset, hours)

    runs = read(RESULTS)
    print()
    for run in runs:
        print(line(run))
    count = len(runs)
    if not count:
        sys.exit("no run")

    print(
        f"\n{count} runs: {sum(r['is_kept_by_ledger'] for r in runs)} kept by the ledger, "
        f"{sum(r['is_kept_by_stopwatch'] for r in runs)} by the stopwatch; "
        f"{sum(r['used'] >= 0.97 for r in runs)} used "
        f"97 % or more; {sum(r['is_as_predicted'] for r in runs)} scores within the plan's interval"
    )


if __name__ == "__main__":
    main()
