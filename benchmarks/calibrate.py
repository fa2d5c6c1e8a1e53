"""Measures the loss law that the planner predicts with, and writes it to lightlm/budget/calibration.json.

    .venv/bin/python benchmarks/calibrate.py run --dataset FOLDER [--threads 2]    # hours; resumable
    .venv/bin/python benchmarks/calibrate.py fit                                   # seconds; --write changes the file

`run` trains a grid of shapes for fixed numbers of steps (annealed each, so that losses do not depend on the speed of
the machine) and appends a line a run to bench-results/calibration.jsonl; runs that are there are not done again.
`fit` finds floor + A N^-a + B D^-b in bits per byte (N parameters that a token is multiplied by, D bytes read, repeats
counted by their worth) by least squares over the logarithm, and prints prediction against measurement for every run.
"""

import argparse
import itertools
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lightlm.budget.scaling import CALIBRATION, choose_learning_rates  # noqa: E402
from lightlm.budget.shapes import choose_ffn_dim, choose_heads  # noqa: E402
from lightlm.data.loader import ThreadedDataLoader  # noqa: E402
from lightlm.data.shards import TokenShards, tokenize_subset  # noqa: E402
from lightlm.data.subset import materialize_subset  # noqa: E402
from lightlm.data.tokenizer import prepare_tokenizer  # noqa: E402
from lightlm.evaluation import evaluate_shards  # noqa: E402
from lightlm.model.accounting import count_matrix_parameters  # noqa: E402
from lightlm.model.config import ModelConfig  # noqa: E402
from lightlm.params import load_params  # noqa: E402
from lightlm.training.config import TrainerConfig  # noqa: E402
from lightlm.training.device import build_model  # noqa: E402
from lightlm.training.optimizer import Optimizer  # noqa: E402
from lightlm.training.pace import StepPace  # noqa: E402
from lightlm.training.trainer import train  # noqa: E402

RESULTS = ROOT / "bench-results" / "calibration.jsonl"

GRID = [
    *((layers, dim, 500) for layers, dim in ((1, 128), (2, 128), (4, 128), (2, 256), (4, 256))),
    *((layers, dim, 2000) for layers, dim in ((1, 128), (2, 128), (4, 128), (3, 192), (4, 256), (6, 256))),
    *((layers, dim, 6000) for layers, dim in ((2, 128), (4, 192), (4, 256))),
]
"""Layers, width, steps; small and large, read little and much, data-limited at the end."""

VOCAB_SIZE, CONTEXT, BATCH_TOKENS = 2048, 128, 2048


def measure(shards: TokenShards, layers: int, dim: int, steps: int, threads: int) -> dict[str, Any]:
    """Return what one annealed run of `steps` steps reached on all held-out text."""
    heads = choose_heads(dim)
    model = ModelConfig(
        vocab_size=shards.vocab_size,
        num_layers=layers,
        model_dim=dim,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=dim // heads,
        ffn_dim=choose_ffn_dim(dim),
        context_length=CONTEXT,
    )
    rates = choose_learning_rates(BATCH_TOKENS, dim)
    trainer = TrainerConfig(
        batch_tokens=BATCH_TOKENS,
        micro_batch_size=BATCH_TOKENS // CONTEXT,
        matrix_learning_rate=rates.matrix,
        embedding_learning_rate=rates.embedding,
        head_learning_rate=rates.head,
        gain_learning_rate=rates.gain,
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
        for _ in train(built, optimizer, loader, trainer, StepPace(steps)):
            pass
    seconds = time.process_time() - started
    score = evaluate_shards(built, shards)
    bytes_a_token = shards.num_train_bytes / shards.num_train_tokens
    return {
        "layers": layers,
        "dim": dim,
        "steps": steps,
        "matrix_parameters": count_matrix_parameters(model),
        "seen_bytes": steps * BATCH_TOKENS * bytes_a_token,
        "unique_bytes": shards.num_train_bytes,
        "bits_per_byte": score.bits_per_byte,
        "cpu_seconds": seconds,
        "dataset": shards.fingerprint,
    }


def run(dataset: str, threads: int) -> None:
    """Do what is left of the grid."""
    params = load_params(dataset=dataset)
    subset = materialize_subset(params.dataset)
    shards = tokenize_subset(subset, prepare_tokenizer(params.tokenizer, subset, [VOCAB_SIZE]))
    done = {(r["layers"], r["dim"], r["steps"]) for r in read_results() if r["dataset"] == shards.fingerprint}
    RESULTS.parent.mkdir(exist_ok=True)
    for layers, dim, steps in GRID:
        if (layers, dim, steps) in done:
            continue
        result = measure(shards, layers, dim, steps, threads)
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        print(f"{layers} x {dim}, {steps} steps: {result['bits_per_byte']:.4f} ({result['cpu_seconds']:.0f} CPU s)")


def read_results() -> list[dict[str, Any]]:
    """Return all runs measured so far."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def fit(results: list[dict[str, Any]]) -> tuple[dict[str, float], float]:
    """Return the law's constants and its root mean square error, relative."""
    size = np.array([r["matrix_parameters"] for r in results], dtype=float)
    bits = np.array([r["bits_per_byte"] for r in results])
    best: tuple[float, dict[str, float]] = (math.inf, {})
    exponents = np.arange(0.20, 0.52, 0.02)
    for a, b, horizon in itertools.product(exponents, exponents, (4.0, 8.0, 15.0)):
        data = np.array([worth(r["seen_bytes"], r["unique_bytes"], horizon) for r in results])
        columns = np.stack([np.ones_like(size), size**-a, data**-b], axis=1)
        weights = 1 / bits
        solution, *_ = np.linalg.lstsq(columns * weights[:, None], bits * weights, rcond=None)
        if (solution < 0).any():
            continue
        error = float(np.sqrt(np.mean(((columns @ solution - bits) / bits) ** 2)))
        if error < best[0]:
            law = dict(
                zip(("floor", "size_scale", "data_scale"), (round(float(x), 4) for x in solution), strict=True),
                size_exponent=round(float(a), 2),
                data_exponent=round(float(b), 2),
                repeats_worth=horizon,
            )
            best = (error, law)
    return best[1], best[0]


def worth(seen: float, unique: float, horizon: float) -> float:
    """Return the fresh bytes that `seen` bytes are worth; as scaling.worth_of_repeats, with a horizon to try."""
    if seen <= unique:
        return seen
    return unique * (1 + horizon * (1 - math.exp(-(seen / unique - 1) / horizon)))


def report(results: list[dict[str, Any]], law: dict[str, float]) -> None:
    """Print measured against predicted."""
    for r in results:
        data = worth(r["seen_bytes"], r["unique_bytes"], law["repeats_worth"])
        predicted = (
            law["floor"]
            + law["size_scale"] * r["matrix_parameters"] ** -law["size_exponent"]
            + law["data_scale"] * data ** -law["data_exponent"]
        )
        print(
            f"{r['layers']:2d} x {r['dim']:4d}  {r['seen_bytes'] / 1e6:7.1f} MB  measured {r['bits_per_byte']:.4f}  "
            f"predicted {predicted:.4f}  ratio {predicted / r['bits_per_byte']:.3f}"
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run")
    runner.add_argument("--dataset", required=True)
    runner.add_argument("--threads", type=int, default=2)
    fitter = commands.add_parser("fit")
    fitter.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if given.command == "run":
        run(given.dataset, given.threads)
        return
    results = read_results()
    if len(results) < 6:
        sys.exit(f"{RESULTS} holds {len(results)} runs; at least 6 are needed: run `calibrate.py run` first")
    law, error = fit(results)
    report(results, law)
    print(f"relative error {error:.4f}: {law}")
    if given.write:
        values = json.loads(CALIBRATION.read_text(encoding="utf-8"))
        values["loss"] = values["loss"] | law
        CALIBRATION.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
