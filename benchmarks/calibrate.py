"""Measures the loss law that the planner predicts with, and writes it to
lightlm/budget/calibration.json.

    .venv/bin/python benchmarks/calibrate.py run --dataset FOLDER [--dataset FILE ...]    # hours; resumable
    .venv/bin/python benchmarks/calibrate.py fit [--write]                                # seconds

`run` trains the grid for fixed numbers of steps, each annealed, so that losses do not depend on the
speed of the machine or on who else uses it, and appends a line a run to
benchmarks/calibration_runs.jsonl; runs that are there are not done again. `fit` finds difficulty *
(floor + A N^-a + B D^-b) in bits per byte (N parameters that a token is multiplied by, D bytes
read, repeats counted by their worth, difficulty of the text by an n-gram model against WikiText-2's)
by least squares of the relative error over our runs and published ones (law_fit.py), and prints
prediction against measurement for every run of ours.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.law_fit import (  # noqa: E402
    Law,
    Run,
    find_difficulty,
    fit_law,
    place,
    read_published,
    rms,
)
from lightlm.budget.calibration import CALIBRATION  # noqa: E402
from lightlm.budget.scaling import (  # noqa: E402
    choose_learning_rates,
    choose_regularization,
)
from lightlm.budget.shapes import dense_shape  # noqa: E402
from lightlm.data.loader import ThreadedDataLoader  # noqa: E402
from lightlm.data.ngram import measure_ngram_bits  # noqa: E402
from lightlm.data.shards import TokenShards, tokenize_subset  # noqa: E402
from lightlm.data.subset import materialize_subset  # noqa: E402
from lightlm.data.tokenization.tokenizer import prepare_tokenizer  # noqa: E402
from lightlm.evaluation.scoring import evaluate_shards  # noqa: E402
from lightlm.model.accounting import count_matrix_parameters  # noqa: E402
from lightlm.params import load_params  # noqa: E402
from lightlm.store.home import find_home  # noqa: E402
from lightlm.training.config import TrainerConfig  # noqa: E402
from lightlm.training.device import build_model  # noqa: E402
from lightlm.training.optimizer import Optimizer  # noqa: E402
from lightlm.training.stop_criterion import StepCriterion  # noqa: E402
from lightlm.training.trainer import train  # noqa: E402

RESULTS = ROOT / "benchmarks" / "calibration_runs.jsonl"

GRID = {
    "large": [
        (4096, 1, 128, 500),
        (4096, 2, 192, 500),
        (2048, 2, 128, 500),
        (1024, 1, 128, 500),
        (4096, 1, 128, 1500),
        (2048, 2, 192, 1500),
        (4096, 2, 192, 1500),
        (8192, 1, 192, 1500),
        (4096, 3, 256, 1500),
        (8192, 3, 192, 3000),
        (4096, 2, 192, 4500),
    ],
    "medium": [(4096, 1, 128, 500), (4096, 2, 192, 1500)],
    "small": [
        (1024, 2, 128, 500),
        (2048, 3, 192, 500),
        (1024, 2, 128, 2000),
        (2048, 4, 256, 500),
        (2048, 2, 192, 1300),
        (2048, 2, 128, 2600),
    ],
}
"""Vocabulary, layers, width, steps; for texts of 5 to 20 MB (the law's own), of more (another
text), and of less (read many times).
"""

CONTEXT = 128
BATCH_TOKENS = 2048


def grid_for(num_bytes: int) -> list[tuple[int, int, int, int]]:
    """Return the settings for a text of `num_bytes`."""
    if num_bytes < 5_000_000:
        return GRID["small"]
    return GRID["large"] if num_bytes < 20_000_000 else GRID["medium"]


def measure(shards: TokenShards, layers: int, dim: int, steps: int, threads: int) -> dict[str, Any]:
    """Return what one annealed run of `steps` steps reached on all held-out text."""
    model = dense_shape(shards.vocab_size, layers, dim, CONTEXT)
    rates = choose_learning_rates(BATCH_TOKENS, dim)
    regularization = choose_regularization(
        steps * BATCH_TOKENS / shards.num_train_tokens,
        count_matrix_parameters(model) / shards.num_train_tokens,
    )
    trainer = TrainerConfig(
        batch_tokens=BATCH_TOKENS,
        micro_batch_size=BATCH_TOKENS // CONTEXT,
        matrix_learning_rate=rates.matrix,
        embedding_learning_rate=rates.embedding,
        head_learning_rate=rates.head,
        gain_learning_rate=rates.gain,
        weight_decay=regularization.weight_decay,
        dropout=regularization.dropout,
        dtype="bfloat16",
        attention="matmul",
        num_threads=threads,
    )

    built = build_model(model, trainer)
    optimizer = Optimizer(built, trainer)
    started = time.process_time()

    with ThreadedDataLoader(
        shards.tokens("train"), context_length=CONTEXT, batch_size=BATCH_TOKENS // CONTEXT, seed=0
    ) as loader:
        for _ in train(built, optimizer, loader, trainer, StepCriterion(steps)):
            pass

    seconds = time.process_time() - started
    score = evaluate_shards(built, shards)
    bytes_per_token = shards.num_train_bytes / shards.num_train_tokens
    return {
        "vocab_size": shards.vocab_size,
        "layers": layers,
        "dim": dim,
        "steps": steps,
        "matrix_parameters": count_matrix_parameters(model),
        "bytes_a_token": round(bytes_per_token, 4),
        "seen_bytes": round(steps * BATCH_TOKENS * bytes_per_token),
        "unique_bytes": shards.num_train_bytes,
        "bits_per_byte": round(score.bits_per_byte, 5),
        "cpu_seconds": round(seconds, 1),
    }


def run(datasets: list[str], threads: int) -> None:
    """Do what is left of the grid."""
    for dataset in datasets:
        params = load_params(dataset=dataset)
        subset = materialize_subset(find_home(), params.dataset)
        ngram_bits, sample_bytes = measure_ngram_bits(subset)
        done = {
            (r["vocab_size"], r["layers"], r["dim"], r["steps"])
            for r in read_results()
            if r["dataset"] == subset.name
        }
        for vocab_size, layers, dim, steps in grid_for(subset.num_bytes):
            if (vocab_size, layers, dim, steps) in done:
                continue
            shards = tokenize_subset(
                find_home(),
                subset,
                prepare_tokenizer(find_home(), params.tokenizer, subset, [vocab_size]),
            )
            text = {
                "dataset": subset.name,
                "ngram_bits_per_byte": ngram_bits,
                "sample_bytes": sample_bytes,
            }
            result = text | measure(shards, layers, dim, steps, threads)
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            print(describe(result), flush=True)


def describe(result: dict[str, Any]) -> str:
    """Return a run in a line."""
    return (
        f"{result['dataset']}: {result['vocab_size']:5d} entries, {result['layers']} x "
        f"{result['dim']}, "
        f"{result['seen_bytes'] / 1e6:5.1f} MB: {result['bits_per_byte']:.4f} "
        f"({result['cpu_seconds']:.0f} CPU s)"
    )


def read_results() -> list[dict[str, Any]]:
    """Return all runs measured so far."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def fit(results: list[Run]) -> tuple[Law, float]:
    """Return the law that our runs and published ones allow, and its relative error for ours."""
    law = fit_law(results, [run for run in read_published() if run["in_fit"]])
    return law, rms([predict(run, law) for run in results], results)


def predict(run: Run, law: Law) -> float:
    """Return the bits per byte that the law says of one of our runs."""
    return find_difficulty(run) * law.predict(*place(run, law))


def report(results: list[Run], law: Law) -> None:
    """Print measured against predicted."""
    for run in results:
        predicted = predict(run, law)
        ratio = predicted / run["bits_per_byte"]
        print(f"{describe(run)}  predicted {predicted:.4f}  ratio {ratio:.3f}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run")
    runner.add_argument("--dataset", required=True, action="append")
    runner.add_argument("--threads", type=int, default=1)
    fitter = commands.add_parser("fit")
    fitter.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if given.command == "run":
        run(given.dataset, given.threads)
        return

    results = read_results()
    if len(results) < 6:
        sys.exit(
            f"{RESULTS} holds {len(results)} runs; at least 6 are needed: run `calibrate.py run` "
            "first"
        )

    law, error = fit(results)
    report(results, law)
    print(f"relative error {error:.4f}: {law.constants()}")
    print(f"factors of published texts: {law.factors}")

    if given.write:
        values = json.loads(CALIBRATION.read_text(encoding="utf-8"))
        values["loss"] = values["loss"] | law.constants()
        sections = (
            f"  {json.dumps(name)}: {json.dumps(section)}" for name, section in values.items()
        )
        CALIBRATION.write_text("{\n" + ",\n".join(sections) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
