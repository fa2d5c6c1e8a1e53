"""Memory of training by shape: the worker's peak resident set against what a plan says of it.

    .venv/bin/python benchmarks/memory.py [--dataset FILE] [--all]

Each row is a worker of its own that trains a few real steps, validates, saves checkpoints and
writes the model's folder, and then says its peak (VmHWM). The plan's figure is arithmetic:
lightlm/model/accounting.py.
"""

import itertools
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from results import Figure, parse_folder, report

from lightlm.budget.memory import plan_memory_bytes
from lightlm.budget.shapes import dense_shape
from lightlm.data.shards import TokenShards, tokenize_subset
from lightlm.data.subset import materialize_subset
from lightlm.data.tokenization.tokenizer import Tokenizer, prepare_tokenizer
from lightlm.model.accounting import count_parameters
from lightlm.model.config import ModelConfig
from lightlm.params import load_params
from lightlm.store.home import find_home
from lightlm.training.config import TrainerConfig
from lightlm.training.messages import TrainRequest
from lightlm.training.supervisor import Worker

VOCAB_SIZE = 4096
GOAL = 0.1
"""Of the measured peak, by which a plan may be off."""

SHAPES: dict[str, dict[str, Any]] = {
    "2 x 128": {"num_layers": 2, "model_dim": 128},
    "4 x 256": {"num_layers": 4, "model_dim": 256},
    "6 x 512": {"num_layers": 6, "model_dim": 512},
    "6 x 512, context 1024": {"num_layers": 6, "model_dim": 512, "context_length": 1024},
    "8 x 768": {"num_layers": 8, "model_dim": 768},
    "4 x 256, experts": {
        "num_layers": 4,
        "model_dim": 256,
        "num_experts": 8,
        "num_active_experts": 2,
    },
}
WAYS: dict[str, dict[str, Any]] = {
    "bf16": {"dtype": "bfloat16"},
    "fp32": {},
    "bf16, recomputed": {"dtype": "bfloat16", "gradient_checkpointing": True},
    "fp32, AdamW": {"optimizer": "adamw"},
    "bf16, sdpa": {"dtype": "bfloat16", "attention": "sdpa"},
    "bf16, compiled": {"dtype": "bfloat16", "compile": True},
    "bf16, one sequence at a time": {"dtype": "bfloat16", "micro_batch_size": 1},
    "fp32, best kept": {"keep_best": True},
}
SHORT = (
    ("4 x 256", "bf16"),
    ("4 x 256", "fp32"),
    ("6 x 512", "bf16"),
    ("6 x 512", "bf16, recomputed"),
    ("6 x 512, context 1024", "bf16, sdpa"),
    ("8 x 768", "fp32, AdamW"),
)
BATCH_TOKENS = 2048


def describe_shape(**change: Any) -> ModelConfig:
    """Return a shape as the planner would lay it out."""
    layers = change["num_layers"]
    values = dense_shape(VOCAB_SIZE, layers, change["model_dim"], 256).model_dump() | change
    if "num_experts" in change:
        values["expert_ffn_dim"] = values["ffn_dim"] // change["num_active_experts"]
    return ModelConfig.model_validate(values)


def prepare_text(source: str) -> tuple[TokenShards, Tokenizer]:
    """Return shards and tokenizer of a text, in the store that LIGHTLM_HOME names."""
    params = load_params(
        overrides={"tokenizer.vocab_size": VOCAB_SIZE, "dataset.max_bytes": 5_000_000},
        dataset=source,
    )
    subset = materialize_subset(find_home(), params.dataset)
    tokenizer = prepare_tokenizer(find_home(), params.tokenizer, subset, [VOCAB_SIZE])
    return tokenize_subset(find_home(), subset, tokenizer), tokenizer


def measure(
    shape: str, way: str, text: tuple[TokenShards, Tokenizer], folder: Path
) -> tuple[Figure, dict[str, Any]]:
    """Return the plan's bytes over the worker's peak, and both."""
    model = describe_shape(**SHAPES[shape])
    options = dict(WAYS[way])
    keep_best = options.pop("keep_best", False)
    values = {
        "batch_tokens": BATCH_TOKENS,
        "micro_batch_size": BATCH_TOKENS // model.context_length,
        "max_steps": 4,
    }

    values |= {"attention": "matmul", "num_validations": 2, "num_checkpoints": 2}
    trainer = TrainerConfig.model_validate(values | options)
    request = TrainRequest(
        run_folder=folder,
        shards_folder=text[0].folder,
        tokenizer_folder=text[1].folder,
        model=model,
        trainer=trainer,
        deadline=time.monotonic() + 3600,
        validation_tokens=2 * BATCH_TOKENS,
        sample_tokens=0,
        keep_best=keep_best,
    )

    with Worker(folder) as worker:
        peak = list(worker.train(request.model_dump(mode="json")))[-1]["result"]["memory_bytes"]
    planned = plan_memory_bytes(model, trainer, keep_best=keep_best)
    print(
        f"  {shape}, {way}: {count_parameters(model) / 1e6:.1f}M parameters, planned "
        f"{planned / 1e6:.0f} MB, "
        f"measured {peak / 1e6:.0f} MB ({planned / peak - 1:+.1%})",
        flush=True,
    )

    error = abs(planned / peak - 1)
    figure = Figure(
        f"memory off, {shape}, {way}", 100 * error, "%", 100 * GOAL, "value", is_lower_better=True
    )

    return figure, {
        "planned_bytes": planned,
        "peak_bytes": peak,
        "parameters": count_parameters(model),
    }


def main() -> None:
    """Measure each shape and way, report."""
    options = parse_folder(
        __doc__ or "", all={"action": "store_true"}, dataset={"default": "python-docs"}
    )
    cases = tuple(itertools.product(SHAPES, WAYS)) if options.all else SHORT
    figures: list[Figure] = []
    details: dict[str, Any] = {}

    with tempfile.TemporaryDirectory() as home:
        os.environ["LIGHTLM_HOME"] = home
        text = prepare_text(options.dataset)
        for index, (shape, way) in enumerate(cases):
            figure, details[f"{shape}, {way}"] = measure(
                shape, way, text, Path(home) / f"run-{index}"
            )
            figures.append(figure)

    report("memory", figures, options.out, details)


if __name__ == "__main__":
    main()
