"""What the layout costs: additions that speedruns found worth it, each against our model in the same CPU time.

    .venv/bin/python benchmarks/ablations.py run --dataset FOLDER --cpu-seconds 200 [--variant relu-squared ...]
    .venv/bin/python benchmarks/ablations.py show

Every variant trains with one thread until it has spent the same seconds of CPU time (compilation is not charged), with
the schedule annealed over them, and is scored on all held-out text; as many at once as there are cores. So neighbours
on the machine change little. 200 CPU seconds are what a run of 0.0333 hours trains on two cores, 650 those of 0.1
hours. A line a run is kept in bench-results/ablations.jsonl; runs that are there are not done again.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ablation_variants import RAMPS, VARIANTS, Variant, install  # noqa: E402
from commands import append, read  # noqa: E402

from lightlm.budget.scaling import choose_learning_rates, choose_regularization  # noqa: E402
from lightlm.budget.shapes import choose_ffn_dim, choose_heads  # noqa: E402
from lightlm.data.loader import Batch, ThreadedDataLoader  # noqa: E402
from lightlm.data.shards import TokenShards, tokenize_subset  # noqa: E402
from lightlm.data.subset import materialize_subset  # noqa: E402
from lightlm.data.tokenizer import prepare_tokenizer  # noqa: E402
from lightlm.evaluation import evaluate_shards  # noqa: E402
from lightlm.model.accounting import count_matrix_parameters  # noqa: E402
from lightlm.model.config import ModelConfig  # noqa: E402
from lightlm.params import load_params  # noqa: E402
from lightlm.training import device  # noqa: E402
from lightlm.training.config import TrainerConfig  # noqa: E402
from lightlm.training.optimizer import Optimizer  # noqa: E402
from lightlm.training.pace import StepPace, TimePace  # noqa: E402
from lightlm.training.timing import random_batch  # noqa: E402
from lightlm.training.trainer import train  # noqa: E402

RESULTS = ROOT / "bench-results" / "ablations.jsonl"
BATCH_TOKENS, CONTEXT = 2048, 128
WARM_STEPS = 2
AVERAGED_SHARE, AVERAGED_EVERY = 0.2, 5
"""Weight averaging: over the last part of the budget, a copy every so many steps."""


def configure(shards: TokenShards, layers: int, dim: int, variant: Variant) -> tuple[ModelConfig, TrainerConfig]:
    """Return shape and recipe as the planner would set them, with what the variant changes."""
    heads = choose_heads(dim)
    model = ModelConfig(
        vocab_size=shards.vocab_size, num_layers=layers, model_dim=dim, num_heads=heads, num_kv_heads=heads,
        head_dim=dim // heads, ffn_dim=choose_ffn_dim(dim), context_length=CONTEXT, **variant.model,
    )  # fmt: skip
    rates = choose_learning_rates(BATCH_TOKENS, dim)
    parameters_a_token = count_matrix_parameters(model) / shards.num_train_tokens
    epochs = 1.0 if shards.num_train_tokens > 1_500_000 else 4.0
    regularization = choose_regularization(epochs, parameters_a_token)
    values: dict[str, Any] = {
        "matrix_learning_rate": rates.matrix,
        "embedding_learning_rate": rates.embedding,
        "head_learning_rate": rates.head,
        "gain_learning_rate": rates.gain,
        "weight_decay": regularization.weight_decay,
        "dropout": regularization.dropout,
    }
    trainer = TrainerConfig(
        batch_tokens=BATCH_TOKENS, micro_batch_size=BATCH_TOKENS // CONTEXT, dtype="bfloat16", attention="matmul",
        compile=True, num_threads=1, **(values | variant.trainer),
    )  # fmt: skip
    return model, trainer


def measure(shards: TokenShards, layers: int, dim: int, name: str, cpu_seconds: float) -> dict[str, Any]:
    """Return what one variant reached on all held-out text in `cpu_seconds`."""
    variant = VARIANTS[name]
    install(variant)
    model, trainer = configure(shards, layers, dim, variant)
    built = device.build_model(model, trainer)
    batch = random_batch(model, trainer)
    shapes = [batch]
    if variant.ramp:
        shapes.append(next(RAMPS[variant.ramp](iter([batch]), lambda: 0.0)))
    for each in shapes:
        for _ in train(built, Optimizer(built, trainer), iter([each] * WARM_STEPS), trainer, StepPace(WARM_STEPS)):
            pass
    device.reset_model(built, trainer)
    pace = TimePace(cpu_seconds, time.process_time)
    sums: dict[str, Tensor] = {}
    num_averaged = 0
    with ThreadedDataLoader(
        shards.tokens("train"), context_length=CONTEXT, batch_size=BATCH_TOKENS // CONTEXT, seed=trainer.seed
    ) as loader:
        batches: Iterator[Batch] = iter(loader)
        if variant.ramp:
            batches = RAMPS[variant.ramp](batches, lambda: pace.progress(0))
        steps = tokens = 0
        for event in train(built, Optimizer(built, trainer), batches, trainer, pace):
            steps, tokens = event.step, getattr(event, "total_tokens", tokens)
            if variant.is_averaged and event.progress >= 1 - AVERAGED_SHARE and steps % AVERAGED_EVERY == 0:
                num_averaged += 1
                for key, weight in built.named_parameters():
                    sums[key] = weight.detach().clone() if key not in sums else sums[key].add_(weight.detach())
    for key, weight in built.named_parameters():
        if num_averaged:
            weight.data.copy_(sums[key] / num_averaged)
    return {
        "layers": layers, "dim": dim, "vocab_size": shards.vocab_size, "steps": steps, "tokens": tokens,
        "parameters": sum(p.numel() for p in built.parameters()),
        "bits_per_byte": round(evaluate_shards(built, shards).bits_per_byte, 5),
    }  # fmt: skip


def run(given: argparse.Namespace) -> None:
    """Do what is left, a process a variant, one a core."""
    key = {
        "dataset": Path(given.dataset).name,
        "cpu_seconds": given.cpu_seconds,
        "layers": given.layers,
        "dim": given.dim,
    }
    done = {r["variant"] for r in read(RESULTS) if all(r[k] == v for k, v in key.items())}
    waiting = [name for name in given.variant or VARIANTS if name not in done]
    prepare(given.dataset, given.vocab_size)
    cores = sorted(os.sched_getaffinity(0))
    running: dict[int, subprocess.Popen[bytes]] = {}
    while waiting or running:
        for core in cores:
            if waiting and core not in running:
                one = [sys.executable, __file__, "one", *rebuild(given), "--variant", waiting.pop(0)]
                running[core] = subprocess.Popen(["taskset", "-c", str(core), *one])
        time.sleep(1.0)
        running = {core: process for core, process in running.items() if process.poll() is None}


def rebuild(given: argparse.Namespace) -> list[str]:
    """Return the options of the command line again."""
    names = ("dataset", "cpu_seconds", "vocab_size", "layers", "dim")
    return [word for name in names for word in (f"--{name.replace('_', '-')}", str(getattr(given, name)))]


def prepare(dataset: str, vocab_size: int) -> TokenShards:
    """Return the shards of a text, from the store if they are there."""
    params = load_params(dataset=dataset)
    subset = materialize_subset(params.dataset)
    return tokenize_subset(subset, prepare_tokenizer(params.tokenizer, subset, [vocab_size]))


def show() -> None:
    """Print every variant against ours, of the same text, shape and time."""
    groups: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for r in read(RESULTS):
        groups.setdefault((r["dataset"], r["cpu_seconds"], r["layers"], r["dim"]), {})[r["variant"]] = r
    for (dataset, seconds, layers, dim), runs in groups.items():
        print(f"{dataset}, {layers} x {dim}, {seconds:g} CPU seconds")
        ours = runs["ours"]["bits_per_byte"] if "ours" in runs else math.nan
        for name, r in sorted(runs.items(), key=lambda pair: pair[1]["bits_per_byte"]):
            change = f"{r['bits_per_byte'] / ours - 1:+.2%}"
            kept = "" if VARIANTS[name].is_exportable else "  breaks the export"
            print(f"  {name:24} {r['bits_per_byte']:.4f}  {change:>7}  {r['tokens'] / 1e6:5.2f} M tokens{kept}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("show")
    for name in ("run", "one"):
        command = commands.add_parser(name)
        command.add_argument("--dataset", required=True)
        command.add_argument("--cpu-seconds", type=float, default=200.0)
        command.add_argument("--variant", action="append", choices=list(VARIANTS))
        command.add_argument("--vocab-size", type=int, default=4096)
        command.add_argument("--layers", type=int, default=2)
        command.add_argument("--dim", type=int, default=192)
    given = parser.parse_args()
    if given.command == "show":
        show()
    elif given.command == "run":
        run(given)
        show()
    else:
        shards = prepare(given.dataset, given.vocab_size)
        result = measure(shards, given.layers, given.dim, given.variant[0], given.cpu_seconds)
        record = {"dataset": Path(given.dataset).name, "variant": given.variant[0], "cpu_seconds": given.cpu_seconds}
        append(RESULTS, record | result)
        print(json.dumps(record | result), flush=True)


if __name__ == "__main__":
    main()
