"""One GPU against its own limit and against the plan: steps, precision, memory, one long run, regret.

    make gpu        # or: .venv/bin/python benchmarks/gpu.py [--dataset FILE] [--only steps run]
    .venv/bin/python benchmarks/gpu.py --device cpu    # a rehearsal with tiny shapes, in a minute

Eight minutes on one card, each part within its own time:

* steps: whole optimizer steps of some 50, 124 and 350 million parameters, eager and compiled, in
  bfloat16 and float16 where the card has them. The share is of the card's own rate of products in
  the same precision, which is model FLOP/s utilization against what was measured, not a data sheet.
* memory: the peak of these steps against the plan's arithmetic.
* run: `lightlm train` for 300 s with the shape of autoresearch's baseline (8 layers x 512, context
  2,048, vocabulary 8,192; github.com/karpathy/autoresearch) on the text at hand.
* regret: the planner's choice in 30 s against half and twice its width and its own shape again.

JSON and a plot go to bench-results, as those of every benchmark; docs/results.md takes its table
from there. Without a GPU it says so and ends with 2.
"""

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from commands import run_train
from results import Figure, parse_folder, report

from lightlm.budget.memory import plan_memory_bytes
from lightlm.budget.shapes import dense_shape
from lightlm.model.accounting import count_parameters, flops_per_token
from lightlm.model.config import ModelConfig
from lightlm.model.memory import is_out_of_memory
from lightlm.training.config import TrainerConfig
from lightlm.training.device import describe_devices
from lightlm.training.timing import StepTiming, measure_matrix_rate, reset_peak_memory, time_steps

PARTS = ("steps", "run", "regret")
MEMORY_GOAL = 10.0
"""Percent of the measured peak by which the plan may be off."""


class Scale(NamedTuple):
    """How large a measurement is: shapes as (vocabulary, layers, width, context), tokens a
    micro-batch, and seconds.
    """

    shapes: dict[str, tuple[int, int, int, int]]
    micro_tokens: int
    step_seconds: float
    run_shape: tuple[int, int, int, int]
    run_hours: float
    regret_hours: float


CARD = Scale(
    shapes={
        "50M": (16_384, 8, 576, 1024),
        "124M": (24_576, 12, 768, 1024),
        "350M": (16_384, 24, 1024, 1024),
    },
    micro_tokens=16_384,
    step_seconds=3.0,
    run_shape=(8192, 8, 512, 2048),
    run_hours=300 / 3600,
    regret_hours=30 / 3600,
)
REHEARSAL = Scale(
    shapes={"0.3M": (512, 1, 64, 128), "1M": (1024, 2, 128, 128)},
    micro_tokens=1024,
    step_seconds=0.5,
    run_shape=(512, 1, 64, 128),
    run_hours=0.008,
    regret_hours=0.006,
)


def list_dtypes(device: str) -> list[str]:
    """Return the precisions of 16 bits that a device computes fast; float32 where it has none."""
    kind = device.partition(":")[0]
    found = next(one for one in describe_devices() if one.kind == kind)
    known = {"bfloat16": found.supports_bfloat16, "float16": found.supports_float16}
    return [name for name, is_fast in known.items() if is_fast] or ["float32"]


def describe_trainer(device: str, dtype: str, tokens: int, context: int) -> TrainerConfig:
    """Return how a shape is timed: one micro-batch a step, so that memory is that of the step."""
    return TrainerConfig(
        batch_tokens=tokens,
        micro_batch_size=max(1, tokens // context),
        dtype=dtype,  # pyright: ignore[reportArgumentType]  (list_dtypes names those there are)
        device=device,
        num_threads=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
    )


def time_shape(model: ModelConfig, trainer: TrainerConfig, seconds: float) -> StepTiming | None:
    """Return the timing of a shape's steps, None where the device's memory does not hold them."""
    reset_peak_memory(trainer.device)
    try:
        return time_steps(model, trainer, seconds)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    finally:
        gc.collect()
        if trainer.device.startswith("cuda"):
            torch.cuda.empty_cache()


def measure_steps(device: str, scale: Scale) -> Iterator[tuple[list[Figure], dict[str, Any]]]:
    """Yield the figures of each shape and precision, and what they come from."""
    for dtype in list_dtypes(device):
        for name, (vocabulary, layers, width, context) in scale.shapes.items():
            model = dense_shape(vocabulary, layers, width, context)
            trainer = describe_trainer(device, dtype, scale.micro_tokens, context)
            limit = measure_matrix_rate(trainer)
            eager = time_shape(model, trainer, scale.step_seconds)
            compiled = time_shape(
                model, trainer.model_copy(update={"compile": True}), scale.step_seconds
            )
            best = compiled or eager
            if eager is None or best is None:
                print(f"  {name}, {dtype}: more than this device's memory holds", flush=True)
                continue

            rate = flops_per_token(model) * best.tokens_per_second
            planned = plan_memory_bytes(model, trainer)
            off = 100 * abs(planned / eager.memory_bytes - 1)
            figures = [
                Figure(f"step, {name}, {dtype}", rate / 1e12, "TFLOP/s", limit=limit / 1e12,
                       limit_name=f"{dtype} products"),
                Figure(f"compiled, {name}, {dtype}", best.tokens_per_second, "tokens/s",
                       rival=eager.tokens_per_second, rival_name="eager"),
                Figure(f"memory off, {name}, {dtype}", off, "%", MEMORY_GOAL, "value",
                       is_lower_better=True),
            ]  # fmt: skip
            yield (
                figures,
                {
                    f"{name}, {dtype}": {
                        "parameters": count_parameters(model),
                        "matrix_rate": limit,
                        "eager": eager.model_dump(),
                        "compiled": None if compiled is None else compiled.model_dump(),
                        "planned_bytes": planned,
                    }
                },
            )


def fix(shape: tuple[int, int, int, int]) -> list[str]:
    """Return the --set values of a shape."""
    names = "tokenizer.vocab_size", "model.num_layers", "model.model_dim", "model.context_length"
    return [f"{name}={value}" for name, value in zip(names, shape, strict=True)]


def measure_run(
    home: Path, dataset: str, device: str, scale: Scale
) -> tuple[list[Figure], dict[str, Any]]:
    """Return the figures of one long run of a fixed shape: seconds against the budget, score
    against the forecast.
    """
    summary = run_train(
        home, scale.run_hours, dataset, f"training.device={device}", *fix(scale.run_shape)
    )
    plan = summary["plan"]
    figures = [
        Figure("whole command", summary["stopwatch_seconds"], "s",
               3600 * scale.run_hours + max(4.0, 0.02 * 3600 * scale.run_hours), "value",
               is_lower_better=True),
        Figure("bits per byte", summary["bits_per_byte"], "", plan["predicted_high"], "value",
               is_lower_better=True),
        Figure("training", summary["tokens_per_second"], "tokens/s",
               rival=plan["tokens_per_second"], rival_name="the plan's"),
        Figure("share of the measured rate", 100 * summary["mfu"], "%"),
    ]  # fmt: skip
    kept = ("shape", "tokens", "ledger", "elapsed_seconds", "network_bits_per_byte")
    return figures, {"run": {name: summary.get(name) for name in kept} | {"plan": plan}}


def measure_regret(
    home: Path, dataset: str, device: str, scale: Scale
) -> tuple[list[Figure], dict[str, Any]]:
    """Return how much worse the planner's choice is than the best of itself again and of half and
    twice its width.
    """
    always = f"training.device={device}", "tracking.promote=never", "model.ngram=off"
    chosen = run_train(home, scale.regret_hours, dataset, *always)
    model = chosen["plan"]["model"]
    scores = {"planner": chosen["bits_per_byte"]}
    for times in (1, 2, 0.5):
        width = max(64, int(times * model["model_dim"]) // 64 * 64)
        shape = (model["vocab_size"], model["num_layers"], width, model["context_length"])
        found = run_train(home, scale.regret_hours, dataset, *always, *fix(shape))
        scores[f"{model['num_layers']} x {width}"] = found["bits_per_byte"]
    regret = 100 * (scores["planner"] / min(scores.values()) - 1)
    figure = Figure("regret", regret, "%", 1.5, "value", is_lower_better=True)
    return [figure], {"regret": scores}


def main() -> int:
    """Measure what is asked for, report."""
    options = parse_folder(
        __doc__ or "",
        dataset={"default": "python-docs"},
        device={"default": "cuda"},
        only={"nargs": "+", "choices": PARTS, "default": list(PARTS)},
    )
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("no GPU that torch can use here, so nothing was measured", file=sys.stderr)
        return 2

    scale = REHEARSAL if options.device == "cpu" else CARD
    figures: list[Figure] = []
    details: dict[str, Any] = {"device": options.device, "torch": torch.__version__}
    if options.device.startswith("cuda"):
        details["name"] = torch.cuda.get_device_name(options.device)

    with tempfile.TemporaryDirectory() as home:
        measured = {
            "steps": lambda: measure_steps(options.device, scale),
            "run": lambda: [measure_run(Path(home), options.dataset, options.device, scale)],
            "regret": lambda: [measure_regret(Path(home), options.dataset, options.device, scale)],
        }
        for part in PARTS:
            for found, told in measured[part]() if part in options.only else ():
                figures += found
                details |= told

    report("gpu", figures, options.out, details)
    return 0


if __name__ == "__main__":
    sys.exit(main())
