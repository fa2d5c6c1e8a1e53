"""Optimizer steps by shape: ours, compiled, against a plain transformers Llama step and the
machine's matrix rate.

    .venv/bin/python benchmarks/steps.py [--all] [--seconds 3] [--threads 1] [--profile]

One process, one run: the rate of bf16 and fp32 matrix products on as many threads, before and after
each shape; our trainer's whole step (loss, gradients, clipping, Muon); and transformers' Llama of
the same width, depth, vocabulary, context and batch in bf16 autocast with fused AdamW: what the
Hugging Face Trainer runs, without the Trainer's own work. Random tokens. The operations of a step
are those of its matrix products (lightlm/model/accounting.py), for both. The short set is three
widths; --all adds 192 and 384; --profile prints where our step's CPU time goes.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from results import Figure, parse_folder, report

CACHE = (
    Path(os.environ.get("LIGHTLM_HOME", Path.home() / ".cache" / "lightlm")) / "cache" / "inductor"
)
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(CACHE))
os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # as the worker has it, lightlm/runs/session.py

import torch  # noqa: E402  (after the place of the compiler's cache is known)

from lightlm.budget.shapes import dense_shape  # noqa: E402
from lightlm.data.loader import Batch  # noqa: E402
from lightlm.model.accounting import flops_per_token  # noqa: E402
from lightlm.model.config import ModelConfig  # noqa: E402
from lightlm.training.config import TrainerConfig  # noqa: E402
from lightlm.training.device import build_model  # noqa: E402
from lightlm.training.optimizer import Optimizer  # noqa: E402
from lightlm.training.stop_criterion import StepCriterion  # noqa: E402
from lightlm.training.timing import measure_matrix_rate, random_batch  # noqa: E402
from lightlm.training.trainer import train  # noqa: E402

SHORT = {128: 2, 256: 4, 512: 6}
OTHERS = {192: 3, 384: 6}
VOCAB_SIZE = 4096
CONTEXT = 256
BATCH_TOKENS = 4096
GOAL = 0.4
GOAL_FROM = 256
"""Of the bf16 rate, from this width on."""


def describe_shape(width: int, depth: int) -> ModelConfig:
    """Return a shape as the planner would lay it out."""
    return dense_shape(VOCAB_SIZE, depth, width, CONTEXT)


def count_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_trainer(dtype: str, num_threads: int) -> TrainerConfig:
    """Return how the shape is trained."""
    return TrainerConfig.model_validate(
        {
            "batch_tokens": BATCH_TOKENS,
            "micro_batch_size": BATCH_TOKENS // CONTEXT,
            "dtype": dtype,
            "compile": True,
            "attention": "matmul",
            "num_threads": num_threads,
        }
    )


def time_ours(model: ModelConfig, trainer: TrainerConfig, seconds: float) -> dict[str, float]:
    """Return wall and CPU seconds of one of our steps, and of the first, which compiles."""
    built = build_model(model, trainer)
    batch = random_batch(model, trainer)
    events = train(
        built, Optimizer(built, trainer), iter(lambda: batch, None), trainer, StepCriterion(10_000)
    )
    return time_steps(lambda: next(events), seconds)


def time_theirs(model: ModelConfig, trainer: TrainerConfig, seconds: float) -> dict[str, float]:
    """Return wall and CPU seconds of a step of transformers' Llama, and of its first."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    rival = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=model.vocab_size,
            hidden_size=model.model_dim,
            intermediate_size=model.ffn_dim,
            num_hidden_layers=model.num_layers,
            num_attention_heads=model.num_heads,
            max_position_embeddings=model.context_length,
            tie_word_embeddings=False,
        )
    )

    rival.train()
    optimizer = torch.optim.AdamW(rival.parameters(), lr=1e-3, fused=True)
    batch: Batch = random_batch(model, trainer)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=trainer.dtype == "bfloat16"):
            loss = rival(input_ids=batch.inputs, labels=batch.inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(rival.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return time_steps(step, seconds)


def time_steps(step: Callable[[], object], max_seconds: float) -> dict[str, float]:
    """Return the seconds of the first step, and of the later ones the lower quartile of wall and
    CPU seconds.
    """
    started = time.perf_counter()
    step()
    first = time.perf_counter() - started
    step()
    walls: list[float] = []
    cpus: list[float] = []
    deadline = time.perf_counter() + max_seconds

    while len(walls) < 4 or time.perf_counter() < deadline:
        wall = time.perf_counter()
        cpu = time.process_time()
        step()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)

    # A neighbor makes some steps slow and none fast.
    quarter = len(walls) // 4
    return {
        "first": first,
        "wall": sorted(walls)[quarter],
        "cpu": sorted(cpus)[quarter],
        "num_steps": len(walls),
    }


def profile_step(model: ModelConfig, trainer: TrainerConfig) -> str:
    """Return the operators of five of our steps by their own CPU time."""
    from torch.profiler import ProfilerActivity, profile

    built = build_model(model, trainer)
    batch = random_batch(model, trainer)
    events = train(
        built, Optimizer(built, trainer), iter(lambda: batch, None), trainer, StepCriterion(10_000)
    )
    for _ in range(3):
        next(events)

    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(5):
            next(events)

    return profiled.key_averages().table(
        sort_by="self_cpu_time_total", row_limit=24, max_name_column_width=48
    )


def measure(
    width: int, depth: int, seconds: float, num_threads: int
) -> tuple[list[Figure], dict[str, Any]]:
    """Return the figures of one shape, and what they come from."""
    model = describe_shape(width, depth)
    trainers = {dtype: describe_trainer(dtype, num_threads) for dtype in ("bfloat16", "float32")}
    rates = {dtype: measure_matrix_rate(trainer) for dtype, trainer in trainers.items()}
    trainer = trainers["bfloat16"]
    mine = time_ours(model, trainer, seconds)
    theirs = time_theirs(model, trainer, seconds)
    # The machine's limit is what it gave in a quiet moment: the better of before and after.
    rates = {dtype: max(rates[dtype], measure_matrix_rate(trainers[dtype])) for dtype in rates}
    work = flops_per_token(model) * BATCH_TOKENS
    figure = Figure(
        f"step, {depth} x {width}",
        work / mine["wall"] / 1e9,
        "GFLOP/s",
        GOAL if width >= GOAL_FROM else None,
        "share",
        rival=work / theirs["wall"] / 1e9,
        rival_name="transformers Llama",
        limit=rates["bfloat16"] / 1e9,
        limit_name="bf16 products",
    )

    print(
        f"  {depth} x {width}: ours {mine['wall'] * 1e3:.0f} ms ({mine['cpu'] * 1e3:.0f} ms of "
        "CPU, first "
        f"{mine['first']:.0f} s), theirs {theirs['wall'] * 1e3:.0f} ms "
        f"({theirs['cpu'] * 1e3:.0f}); fp32 products "
        f"{rates['float32'] / 1e9:.0f} GFLOP/s",
        flush=True,
    )

    details = {
        "ours": mine,
        "transformers": theirs,
        "matrix_rates": rates,
        "flops": work,
        "tokens_per_second": BATCH_TOKENS / mine["wall"],
        "share_of_fp32": work / mine["wall"] / rates["float32"],
    }

    return [figure], details


def main() -> None:
    """Measure each shape, report."""
    options = parse_folder(
        __doc__ or "",
        all={"action": "store_true"},
        seconds={"type": float, "default": 3.0},
        threads={"type": int, "default": count_cores()},
        profile={"action": "store_true"},
    )

    shapes = dict(sorted((SHORT | OTHERS if options.all else SHORT).items()))
    if options.profile:
        for width, depth in shapes.items():
            print(
                profile_step(
                    describe_shape(width, depth), describe_trainer("bfloat16", options.threads)
                )
            )
        return

    figures: list[Figure] = []
    details: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE,
        "context_length": CONTEXT,
        "batch_tokens": BATCH_TOKENS,
    }

    details["num_threads"] = options.threads
    for width, depth in shapes.items():
        found, details[f"{depth} x {width}"] = measure(
            width, depth, options.seconds, options.threads
        )
        figures += found

    report("steps", figures, options.out, details)


if __name__ == "__main__":
    main()
