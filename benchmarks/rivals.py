"""LightLM against rivals in the same whole-command time: the same text, threads, clock and score.

    .venv/bin/python benchmarks/rivals.py --dataset FOLDER [--dataset FILE ...] [--hours 0.0333]

The rivals are given, uncharged, what LightLM makes in its time: the split text and a tokenizer of
4,096 entries; counting trains its own. Their sizes and rates were picked by hand (see their files). LightLM is the plain
command with a warm store; no flags. Every run is a line of bench-results/rivals.jsonl. Printed:
bits per byte on the whole held-out text, and the ratio.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from commands import ROOT, append, read, run_train

sys.path.insert(0, str(ROOT))

from lightlm.data.subset import materialize_subset
from lightlm.data.tokenization.tokenizer import prepare_tokenizer
from lightlm.params import load_params

RESULTS = ROOT / "bench-results" / "rivals.jsonl"
RIVALS = {
    "HF Trainer, Llama 4 x 128": "rival_hugging_face.py",
    "plain GPT loop, 4 x 128": "rival_nanogpt.py",
    "counting, order 6": "rival_counting.py",
}
VOCAB_SIZE = 4096


def prepare(home: Path, dataset: str) -> tuple[Path, Path]:
    """Return the folder of the split text and the tokenizer's file."""
    os.environ["LIGHTLM_HOME"] = str(home)
    params = load_params(dataset=dataset)
    subset = materialize_subset(home, params.dataset)
    folder = home / "rivals" / Path(dataset).stem
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation"):
        (folder / f"{split}.txt").write_bytes(b"".join(subset.read_documents(split)))
    tokenizer = prepare_tokenizer(home, params.tokenizer, subset, [VOCAB_SIZE])
    return folder, tokenizer.folder / "tokenizer.json"


def measure(home: Path, dataset: str, hours: float) -> None:
    """Make LightLM's run and each rival's, unless they are there."""
    name = Path(dataset).name
    done = {(r["dataset"], r["hours"], r["system"]) for r in read(RESULTS)}
    if (name, hours, "LightLM") not in done:
        run_train(home, 0.005, dataset)
        summary = run_train(home, hours, dataset)
        keep(name, hours, "LightLM", summary, summary["stopwatch_seconds"])

    text, tokenizer = prepare(home, dataset)
    for system, script in RIVALS.items():
        if (name, hours, system) in done:
            continue
        command = [sys.executable, str(ROOT / "benchmarks" / script), "--text", str(text)]
        command += ["--tokenizer", str(tokenizer), "--seconds", str(hours * 3600)]
        command += ["--threads", str(len(os.sched_getaffinity(0)))]
        started = time.perf_counter()
        done_ = subprocess.run(command, capture_output=True, text=True, check=False)
        if done_.returncode:
            sys.exit(f"{script} failed: {done_.stderr[-2000:]}")
        keep(
            name,
            hours,
            system,
            json.loads(done_.stdout.splitlines()[-1]),
            time.perf_counter() - started,
        )


def keep(dataset: str, hours: float, system: str, result: dict[str, Any], seconds: float) -> None:
    """Keep a run's line and print it."""
    record = {
        "dataset": dataset,
        "hours": hours,
        "system": system,
        "bits_per_byte": result["bits_per_byte"],
        "tokens": result["tokens"],
        "stopwatch_seconds": round(seconds, 1),
    }
    append(RESULTS, record)
    print(record, flush=True)


def report() -> None:
    """Print every run against LightLM's on the same text in the same time."""
    runs = read(RESULTS)
    ours = {
        (r["dataset"], r["hours"]): r["bits_per_byte"] for r in runs if r["system"] == "LightLM"
    }
    for r in runs:
        ratio = r["bits_per_byte"] / ours[r["dataset"], r["hours"]]
        print(
            f"{r['dataset']:18} {r['hours']:7g} h  {r['system']:28} {r['bits_per_byte']:.4f} bits "
            "per byte  "
            f"x {ratio:.3f}  {r['tokens'] / 1e6:5.2f} M tokens  {r['stopwatch_seconds']:.1f} s"
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", action="append", required=True)
    parser.add_argument("--hours", type=float, default=0.0333)
    parser.add_argument("--home", type=Path, default=ROOT / "bench-results" / "rivals-home")
    given = parser.parse_args()
    for dataset in given.dataset:
        measure(given.home, dataset, given.hours)
    report()


if __name__ == "__main__":
    main()
