"""The time of a step that is too long to be run: parts of it, at one layer and at two.

A step is micro-batches, each a pass over head and layers, and an update. One micro-batch and one
update are timed at both depths; the rest is arithmetic.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from lightlm.data.loader import Batch
from lightlm.model.accounting import flops_per_token
from lightlm.model.config import ModelConfig
from lightlm.model.transformer import Transformer
from lightlm.training.config import TrainerConfig
from lightlm.training.device import build_model
from lightlm.training.optimizer import Optimizer
from lightlm.training.timing import StepTiming, random_batch, used_memory, wait
from lightlm.training.trainer import Measured, measure_gradients, update_weights

LEAST_PACE = 0.5
MOST_PACE = 2.0
"""Bounds on a layer's seconds per operation, relative to those of head and two layers together. A
layer costs little compared with a large head, so that the difference of two timings is noisy.
"""


PARTS = 5
"""Parts that are repeated in the time for them: passes and updates at both depths, and scoring."""

SLOW = 2
"""First passes in the time for all parts below which nothing more is timed than has to be."""

USUAL_SCORING = 0.4
"""Seconds of scoring over those of both passes, where it is not timed."""

NO_FIGURES = Measured(loss=0.0, balance_loss=None, gradient_norm=0.0)
"""Figures of a pass whose gradients are not clipped."""


class Parts(NamedTuple):
    """Seconds of one micro-batch's passes, and of the update."""

    passes: float
    update: float


def time_step_parts(
    model: ModelConfig, trainer: TrainerConfig, tokens: int, max_seconds: float
) -> StepTiming:
    """Return the timing of steps of `model`, extrapolated from passes over about `tokens` tokens.

    Holds two layers in memory, whatever the depth. Where the first pass takes so long that the rest
    would exceed `max_seconds`, it is the only one, and operations tell the depth.
    """
    trainer = trainer.model_copy(update={"context_ramp_fraction": 0.0})
    depth = min(2, model.num_layers)
    short = model.model_copy(update={"num_layers": depth})
    sequences = max(1, min(trainer.micro_batch_size, tokens // model.context_length))
    piece = trainer.model_copy(
        update={
            "batch_tokens": sequences * model.context_length,
            "micro_batch_size": sequences,
        }
    )

    built = build_model(short, piece)
    batch = random_batch(short, piece)
    started = time.perf_counter()
    _run_passes(built, batch, piece)
    first = time.perf_counter() - started

    is_slow = SLOW * first > max_seconds and not trainer.compile
    share = 0.0 if is_slow else max_seconds / PARTS
    passes = first if is_slow else _time(lambda: _run_passes(built, batch, piece), share)
    two = Parts(passes, _time_update(built, piece, share))
    scoring = USUAL_SCORING if is_slow else _time(lambda: _score(built, batch), share) / passes
    whole = two

    if depth < model.num_layers:
        one = None
        if not is_slow:
            built.layers = nn.ModuleList(list(built.layers)[:1])
            passes = _time(lambda: _run_passes(built, batch, piece), share)
            one = Parts(passes, _time_update(built, piece, share))
        whole = extrapolate(model, one, two)

    repeats = trainer.batch_tokens / piece.batch_tokens
    step_seconds = repeats * whole.passes + whole.update
    return StepTiming(
        first_seconds=first,
        step_seconds=step_seconds,
        slow_step_seconds=step_seconds,
        num_steps=1,
        tokens_per_second=trainer.batch_tokens / step_seconds,
        score_tokens_per_second=piece.batch_tokens / (scoring * whole.passes),
        memory_bytes=used_memory(trainer.device),
    )


def extrapolate(model: ModelConfig, one: Parts | None, two: Parts) -> Parts:
    """Return the parts at the depth of `model` from those at one layer and at two, or two alone."""
    flops = [
        flops_per_token(model.model_copy(update={"num_layers": depth}))
        for depth in (1, 2, model.num_layers)
    ]
    share = (flops[1] - flops[0]) / flops[1]
    beyond = model.num_layers - 2
    usual = Parts(share * two.passes, two.update / 2)
    if one is None:
        return Parts(two.passes + beyond * usual.passes, two.update + beyond * usual.update)

    def extend(short: float, long: float, layer: float) -> float:
        layer = min(max(long - short, LEAST_PACE * layer), MOST_PACE * layer)
        return long + beyond * layer

    return Parts(
        passes=extend(one.passes, two.passes, usual.passes),
        update=extend(one.update, two.update, usual.update),
    )


def _time_update(model: Transformer, trainer: TrainerConfig, max_seconds: float) -> float:
    """Return the seconds of an update of the layers that `model` has now."""
    parameters = list(model.parameters())
    optimizer = Optimizer(model, trainer)

    def update() -> None:
        update_weights(parameters, optimizer, trainer, NO_FIGURES, progress=0.5)
        wait(parameters[0])

    return _time(update, max_seconds)


def _time(work: Callable[[], None], max_seconds: float) -> float:
    """Return the seconds of the fastest of the repetitions that fit; at least one."""
    best = float("inf")
    ends_at = time.perf_counter() + max_seconds
    while True:
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
        if time.perf_counter() + best > ends_at:
            return best


def _run_passes(model: Transformer, batch: Batch, trainer: TrainerConfig) -> None:
    model.train()
    measure_gradients(model, list(model.parameters()), batch, trainer.micro_batch_size)


def _score(model: Transformer, batch: Batch) -> None:
    model.eval()
    with torch.inference_mode():
        wait(model(batch.inputs, batch.targets))
