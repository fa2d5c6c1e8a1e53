"""The training loop: batches in, events out. It neither logs, prints nor saves.

The caller's stop criterion decides how much budget is left.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from lightlm.data.loader import Batch
from lightlm.errors import TrainingError
from lightlm.model.memory import is_out_of_memory
from lightlm.model.transformer import Transformer
from lightlm.training.config import TrainerConfig
from lightlm.training.events import MicroBatchReduced, StepDone, StepSkipped
from lightlm.training.loss_scale import LossScale
from lightlm.training.optimizer import Optimizer
from lightlm.training.ranks import ALONE, OutOfMemoryElsewhere, Ranks
from lightlm.training.schedule import learning_rate_factor
from lightlm.training.sharding import local
from lightlm.training.stop_criterion import StopCriterion

MAX_CONSECUTIVE_SKIPPED = 3
"""Steps in a row without an update after which the weights are to blame, and not the batch."""

SPIKE_FACTOR = 3.0
"""Factor on the loss's moving average beyond which, if worse than chance too, a model diverged."""

LOSS_DECAY = 0.95
"""Decay of the loss's exponential moving average per step: about the last twenty steps."""


class Diverged(TrainingError):
    """Several steps in a row were of no use: the weights have to go back to an earlier state."""


class Measured(NamedTuple):
    """The figures of one pass over a batch: nats per token, balance loss, gradient norm."""

    loss: float
    balance_loss: float | None
    gradient_norm: float

    def is_usable(self, loss_ema: float | None, chance: float) -> bool:
        """Return whether a step may change the weights: finite, and no spike of the loss."""
        if not (math.isfinite(self.loss) and math.isfinite(self.gradient_norm)):
            return False
        return loss_ema is None or self.loss <= max(SPIKE_FACTOR * loss_ema, chance)


@dataclass
class Progress:
    """The loop's own counters, which a checkpoint keeps."""

    step: int = 0
    total_tokens: int = 0
    micro_batch_size: int | None = None
    learning_rate_scale: float = 1.0
    """Factor on the plan's learning rates; halved at each rollback."""
    loss_ema: float | None = None
    """Exponential moving average of the loss, in nats per token."""
    consecutive_skipped: int = field(default=0, repr=False)
    loss_scale: LossScale | None = field(default=None, repr=False)
    """Factor on the loss with float16; a resumed run finds it again in some steps."""


def train(
    model: Transformer,
    optimizer: Optimizer,
    batches: Iterator[Batch],
    config: TrainerConfig,
    criterion: StopCriterion,
    *,
    counters: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[StepDone | StepSkipped | MicroBatchReduced]:
    """Train until `criterion` allows no further step or `should_stop`; yield an event per step.

    `model` must be on the batches' device, its compute dtype set. `counters` is updated in place,
    to be saved.

    Raises:
        Diverged: three steps in a row were not finite, or spikes; the weights are those before the
            first of them.
        TrainingError: one sequence does not fit into memory.
    """
    counters = counters or Progress()
    counters.micro_batch_size = counters.micro_batch_size or config.micro_batch_size
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    counters.loss_scale = counters.loss_scale or LossScale(config.dtype)
    loss_scale = counters.loss_scale
    model.train()

    while (progress := ranks.agree(criterion, should_stop, counters.step)) is not None:
        started = clock()
        batch = next(batches)
        waited = clock() - started
        seed_dropout(config, counters.step)
        try:
            computed = ramp_context(batch, counters.micro_batch_size, config, progress)
            measured = measure_gradients(model, parameters, *computed, ranks, loss_scale.factor)
        except RuntimeError as error:
            counters.micro_batch_size = _shrink(error, counters.micro_batch_size, ranks)
            batches = _put_back(batch, batches)
            yield MicroBatchReduced(counters.step, progress, counters.micro_batch_size)
            continue
        counters.step += 1
        counters.total_tokens += (batch_tokens := ranks.size * batch.inputs.numel())
        if not loss_scale.accept(is_finite=math.isfinite(measured.gradient_norm)):
            yield StepSkipped(counters.step, progress, measured.loss, measured.gradient_norm)
            continue
        if not measured.is_usable(counters.loss_ema, math.log(model.config.vocab_size)):
            yield StepSkipped(counters.step, progress, measured.loss, measured.gradient_norm)
            _count_skipped(counters, measured)
            continue
        _update_loss_ema(counters, measured.loss)
        factor = update_weights(
            parameters, optimizer, config, measured, progress, counters.learning_rate_scale
        )
        criterion.record_step(seconds := clock() - started)
        yield StepDone(
            counters.step,
            progress,
            measured.loss,
            factor,
            measured.gradient_norm,
            batch_tokens=batch_tokens,
            total_tokens=counters.total_tokens,
            seconds=seconds,
            waited_seconds=waited,
            balance_loss=measured.balance_loss,
        )


def ramp_context(
    batch: Batch, micro_batch_size: int, config: TrainerConfig, progress: float
) -> tuple[Batch, int]:
    """Return batch and micro-batch size: early sequences are shorter, with as many tokens."""
    if progress >= config.context_ramp_fraction or batch.inputs.shape[1] % 2:
        return batch, micro_batch_size
    return batch.halve_context(), 2 * micro_batch_size


def seed_dropout(config: TrainerConfig, step: int) -> None:
    """Seed dropout by seed and step, so that a resumed run drops the same activations."""
    if config.dropout:
        torch.manual_seed((config.seed * 1_000_003 + step) % 2**63)


def update_weights(
    parameters: Sequence[Tensor],
    optimizer: Optimizer,
    config: TrainerConfig,
    measured: Measured,
    progress: float,
    share: float = 1.0,
) -> float:
    """Clip gradients and step the optimizer at `progress`; return the learning rate factor."""
    factor = share * learning_rate_factor(
        progress, warmup_fraction=config.warmup_fraction, cooldown_fraction=config.cooldown_fraction
    )
    clip_gradients(parameters, measured.gradient_norm, config.gradient_clip_norm)
    optimizer.step(factor, progress)
    return factor


def measure_gradients(
    model: Transformer,
    parameters: Sequence[Tensor],
    batch: Batch,
    micro_batch_size: int,
    ranks: Ranks = ALONE,
    loss_scale: float = 1.0,
) -> Measured:
    """Return loss and gradient norm of a batch (B, T); leaves the mean gradient in `parameters`.

    With several ranks, of the batches of all: each has an equal share of them. The backward pass is
    of `loss_scale` times the loss, and its gradients are scaled back.
    """
    for parameter in parameters:
        if parameter.grad is not None and ranks.keeps_gradients:
            parameter.grad.zero_()
        else:
            parameter.grad = None
    num_sequences = batch.inputs.shape[0]
    shape = batch.inputs[:micro_batch_size].shape
    loss = torch.zeros((), device=batch.inputs.device)
    balance: Tensor | None = None

    for start in range(0, num_sequences, micro_batch_size):
        inputs, targets = batch.rows(start, start + micro_batch_size).widen()
        share = inputs.shape[0] / num_sequences
        is_last = start + micro_batch_size >= num_sequences
        with ranks.accumulate(model, shape, is_last=is_last) as compute_loss:
            nats, balance_loss = compute_loss(inputs, targets)
            objective = nats
            if balance_loss is not None:
                objective = nats + model.config.balance_loss_weight * balance_loss
                balance = balance_loss.detach() * share + (0.0 if balance is None else balance)
            (objective * (share * loss_scale)).backward()
        loss += nats.detach() * share

    ranks.average(loss, parameters)
    if loss_scale != 1.0:
        torch._foreach_mul_(list_gradients(parameters), 1 / loss_scale)  # pyright: ignore[reportPrivateImportUsage]
    norm = ranks.measure_norm(list_gradients(parameters))
    # The one wait for the device in a step: the host decides whether these gradients may touch the
    # weights.
    figures = torch.stack([loss, norm, loss if balance is None else balance]).tolist()
    return Measured(figures[0], None if balance is None else figures[2], figures[1])


def list_gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients; of a sharded model this rank's rows of them, as views."""
    return [local(parameter.grad) for parameter in parameters if parameter.grad is not None]


def clip_gradients(parameters: Sequence[Tensor], norm: float, limit: float) -> None:
    """Scale all gradients down to a total norm of `limit`."""
    if norm > limit:
        torch._foreach_mul_(list_gradients(parameters), limit / norm)  # pyright: ignore[reportPrivateImportUsage]


def halve_micro_batch(micro_batch_size: int) -> int:
    """Return the next smaller micro-batch size after memory ran out.

    Raises:
        TrainingError: it is one sequence already.
    """
    if micro_batch_size == 1:
        raise TrainingError(
            "one sequence does not fit into memory; give a smaller model.context_length, "
            "model.model_dim or tokenizer.vocab_size"
        )
    return (micro_batch_size + 1) // 2


def _shrink(error: RuntimeError, micro_batch_size: int, ranks: Ranks) -> int:
    """Return the next micro-batch size on all ranks; raise errors that are not of memory."""
    if not is_out_of_memory(error):
        raise error
    if not isinstance(error, OutOfMemoryElsewhere):
        ranks.shrink()
    return halve_micro_batch(micro_batch_size)


def _update_loss_ema(counters: Progress, loss: float) -> None:
    counters.consecutive_skipped = 0
    usual = loss if counters.loss_ema is None else counters.loss_ema
    counters.loss_ema = LOSS_DECAY * usual + (1 - LOSS_DECAY) * loss


def _count_skipped(counters: Progress, measured: Measured) -> None:
    counters.consecutive_skipped += 1
    if counters.consecutive_skipped >= MAX_CONSECUTIVE_SKIPPED:
        raise Diverged(
            f"{MAX_CONSECUTIVE_SKIPPED} steps in a row were not finite, or far worse than chance "
            f"(loss {measured.loss}, gradient norm {measured.gradient_norm}); give a smaller "
            "training.learning_rate_scale, or training.dtype=float32"
        )


def _put_back(batch: Batch, batches: Iterator[Batch]) -> Iterator[Batch]:
    yield batch
    yield from batches
