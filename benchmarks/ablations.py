"""What the layout costs: additions that speedruns found worth it, each against our model in the
same CPU time.

    .venv/bin/python benchmarks/ablations.py run --dataset FOLDER --steps 1000 [--variant
    relu-squared ...] .venv/bin/python benchmarks/ablations.py show

Every variant gets the CPU time that ours takes for `--steps`: first a step of each is timed, ours
and the variant's by turns in one process, so that neighbors on the machine slow both; then the
variant trains for as many steps as that ratio allows (compilation is not charged), annealed over
them, and is scored on all held-out text. One thread each, as many at once as there are cores. 1,000
steps of 2 layers x 192 take 120 CPU seconds, a core's 0.0333 hours, and 3,000 take 360, its 0.1
hours. A line a run is kept in bench-results/ablations.jsonl; runs that are there are not done
again.
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

from ablation_variants import RAMP_SHARE, RAMPS, VARIANTS, Variant, install  # noqa: E402
from commands import append, read  # noqa: E402

from lightlm.budget.scaling import choose_learning_rates, choose_regularization  # noqa: E402
from lightlm.budget.shapes import dense_shape  # noqa: E402
from lightlm.data.loader import Batch, ThreadedDataLoader  # noqa: E402
from lightlm.data.shards import TokenShards, tokenize_subset  # noqa: E402
from lightlm.data.subset import materialize_subset  # noqa: E402
from lightlm.data.tokenization.tokenizer import prepare_tokenizer  # noqa: E402
from lightlm.evaluation.scoring import evaluate_shards  # noqa: E402
from lightlm.model.accounting import count_matrix_parameters  # noqa: E402
from lightlm.model.config import ModelConfig  # noqa: E402
from lightlm.params import load_params  # noqa: E402
from lightlm.store.home import find_home  # noqa: E402
from lightlm.training import device  # noqa: E402
from lightlm.training.config import TrainerConfig  # noqa: E402
from lightlm.training.optimizer import Optimizer  # noqa: E402
from lightlm.training.stop_criterion import StepCriterion  # noqa: E402
from lightlm.training.timing import random_batch  # noqa: E402
from lightlm.training.trainer import train  # noqa: E402

RESULTS = ROOT / "bench-results" / "ablations.jsonl"
BATCH_TOKENS = 2048
CONTEXT = 128
WARM_STEPS = 2
COMPARED_STEPS = 31
"""Timed by turns for the ratio of two steps."""

AVERAGED_SHARE = 0.2
AVERAGED_EVERY = 5
"""Weight averaging: over the last part of the budget, a copy every so many steps."""


def configure(
    shards: TokenShards, layers: int, dim: int, variant: Variant
) -> tuple[ModelConfig, TrainerConfig]:
    """Return shape and recipe as the planner would set them, with what the variant changes."""
    plain = dense_shape(shards.vocab_size, layers, dim, CONTEXT)
    model = ModelConfig.model_validate(plain.model_dump() | variant.model)
    rates = choose_learning_rates(BATCH_TOKENS, dim)
    parameters_per_token = count_matrix_parameters(model) / shards.num_train_tokens
    epochs = 1.0 if shards.num_train_tokens > 1_500_000 else 4.0
    regularization = choose_regularization(epochs, parameters_per_token)
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


class Trial:
    """A variant ready to train: its compiled model, and what a step of it takes."""

    def __init__(self, shards: TokenShards, layers: int, dim: int, variant: Variant) -> None:
        self.variant = variant
        self.config, self.trainer = configure(shards, layers, dim, variant)
        self.model = device.build_model(self.config, self.trainer)
        self.batches = [random_batch(self.config, self.trainer)]
        if variant.ramp:
            self.batches.append(next(RAMPS[variant.ramp](iter(self.batches), lambda: 0.0)))
        self.optimizer = Optimizer(self.model, self.trainer)
        self.step(WARM_STEPS)

    def step(self, count: int = 1) -> float:
        """Return the CPU seconds that `count` steps take; of a ramp, as often of each shape as it
        has them.
        """
        seconds = []
        for batch in self.batches:
            started = time.process_time()
            for _ in train(
                self.model,
                self.optimizer,
                iter([batch] * count),
                self.trainer,
                StepCriterion(count),
            ):
                pass
            seconds.append(time.process_time() - started)
        return seconds[0] + RAMP_SHARE * (seconds[-1] - seconds[0])


def compare_cost(ours: Trial, variant: Trial) -> float:
    """Return what a step of the variant takes, ours = 1: the median ratio of steps that were timed
    by turns.
    """
    ratios = sorted(variant.step() / ours.step() for _ in range(COMPARED_STEPS))
    return ratios[len(ratios) // 2]


def measure(shards: TokenShards, layers: int, dim: int, name: str, steps: int) -> dict[str, Any]:
    """Return what one variant reached on all held-out text in the CPU time of `steps` of ours."""
    ours = Trial(shards, layers, dim, VARIANTS["ours"])
    variant = VARIANTS[name]
    install(variant)
    trial = Trial(shards, layers, dim, variant)
    cost = compare_cost(ours, trial)
    built = trial.model
    trainer = trial.trainer
    device.reset_model(built, trainer)
    max_steps = round(steps / cost)
    done = tokens = num_averaged = 0
    sums: dict[str, Tensor] = {}

    with ThreadedDataLoader(
        shards.tokens("train"),
        context_length=CONTEXT,
        batch_size=BATCH_TOKENS // CONTEXT,
        seed=trainer.seed,
    ) as loader:
        batches: Iterator[Batch] = iter(loader)
        if variant.ramp:
            batches = RAMPS[variant.ramp](batches, lambda: done / max_steps)
        for event in train(
            built, Optimizer(built, trainer), batches, trainer, StepCriterion(max_steps)
        ):
            done = event.step
            tokens = getattr(event, "total_tokens", tokens)
            if (
                variant.is_averaged
                and event.progress >= 1 - AVERAGED_SHARE
                and done % AVERAGED_EVERY == 0
            ):
                num_averaged += 1
                for key, weight in built.named_parameters():
                    sums[key] = (
                        weight.detach().clone()
                        if key not in sums
                        else sums[key].add_(weight.detach())
                    )

    for key, weight in built.named_parameters():
        if num_averaged:
            weight.data.copy_(sums[key] / num_averaged)

    return {
        "layers": layers, "dim": dim, "vocab_size": shards.vocab_size, "steps": done, "tokens": tokens,
        "parameters": sum(p.numel() for p in built.parameters()), "cost_of_a_step": round(cost, 4),
        "bits_per_byte": round(evaluate_shards(built, shards).bits_per_byte, 5),
    }  # fmt: skip


def run(given: argparse.Namespace) -> None:
    """Do what is left, a process a variant, one a core."""
    key = {
        "dataset": Path(given.dataset).name,
        "our_steps": given.steps,
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
                one = [
                    sys.executable,
                    __file__,
                    "one",
                    *rebuild(given),
                    "--variant",
                    waiting.pop(0),
                ]
                running[core] = subprocess.Popen(["taskset", "-c", str(core), *one])
        time.sleep(1.0)
        running = {core: process for core, process in running.items() if process.poll() is None}


def rebuild(given: argparse.Namespace) -> list[str]:
    """Return the options of the command line again."""
    names = ("dataset", "steps", "vocab_size", "layers", "dim")
    return [
        word
        for name in names
        for word in (f"--{name.replace('_', '-')}", str(getattr(given, name)))
    ]


def prepare(dataset: str, vocab_size: int) -> TokenShards:
    """Return the shards of a text, from the store if they are there."""
    params = load_params(dataset=dataset)
    subset = materialize_subset(find_home(), params.dataset)
    return tokenize_subset(
        find_home(), subset, prepare_tokenizer(find_home(), params.tokenizer, subset, [vocab_size])
    )


def show() -> None:
    """Print every variant against ours, of the same text, shape and time."""
    groups: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for r in read(RESULTS):
        groups.setdefault((r["dataset"], r["our_steps"], r["layers"], r["dim"]), {})[
            r["variant"]
        ] = r

    for (dataset, steps, layers, dim), runs in groups.items():
        print(f"{dataset}, {layers} x {dim}, the CPU time of {steps:,} steps of ours")
        ours = runs["ours"]["bits_per_byte"] if "ours" in runs else math.nan
        for name, r in sorted(runs.items(), key=lambda pair: pair[1]["bits_per_byte"]):
            change = f"{r['bits_per_byte'] / ours - 1:+.2%}"
            kept = "" if VARIANTS[name].is_exportable else "  breaks the export"
            print(
                f"  {name:24} {r['bits_per_byte']:.4f}  {change:>7}  a step costs "
                f"{r['cost_of_a_step']:.2f}, "
                f"{r['tokens'] / 1e6:5.2f} M tokens{kept}"
            )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("show")

    for name in ("run", "one"):
        command = commands.add_parser(name)
        command.add_argument("--dataset", required=True)
        command.add_argument("--steps", type=int, default=1000, help="of ours")
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
        result = measure(shards, given.layers, given.dim, given.variant[0], given.steps)
        record = {
            "dataset": Path(given.dataset).name,
            "variant": given.variant[0],
            "our_steps": given.steps,
        }
        append(RESULTS, record | result)
        print(json.dumps(record | result), flush=True)


if __name__ == "__main__":
    main()
