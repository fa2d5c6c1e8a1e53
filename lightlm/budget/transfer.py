"""The score that training from a base is forecast to reach, and the plan of it.

The law of transfer is anchored at the base's score before it is touched, which the probe measures:
after D bytes of the text it is that score times (1 + e D / scale) ** -exponent. Compare Hernandez
et al. 2021, arXiv 2102.01293. No torch.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from lightlm.budget.candidate import TextFacts
from lightlm.budget.ledger import SECONDS_PER_HOUR
from lightlm.budget.memory import usable_memory
from lightlm.budget.plan import Alternative, Plan
from lightlm.budget.probe import MachineRate
from lightlm.budget.ranking import TimeLeft, limit_evaluation
from lightlm.budget.scaling import useful_epochs
from lightlm.budget.shares import settle_shares
from lightlm.budget.tuning import (
    base_memory_bytes,
    choose_base_trainer,
    count_trained,
    list_tuned,
    shape_base,
)
from lightlm.errors import ParameterError
from lightlm.model.accounting import count_matrix_parameters, count_parameters
from lightlm.model.config import ModelConfig
from lightlm.params import Params
from lightlm.quantities import count
from lightlm.training.config import TrainerConfig, Tuned
from lightlm.training.messages import BaseProbe, TunedTiming

TRANSFER_SCALE = 3_000.0
TRANSFER_EXPONENT = 0.030
"""Bytes, and exponent, of the law of transfer: seven runs of SmolLM2-135M over 6 to 74 kB of five
texts (docs/start.md), root mean square error 3.7 %. Beyond them it is an assumption.
"""

WORTH = {"all": 1.0, "lora": 0.7, "last": 0.6}
"""Bytes that one byte of the text is worth in that law, by what is tuned. Assumption."""

INTERVAL = 0.06
"""Relative half-width of the forecast's interval, where whole windows of the base were scored."""

WINDOW_DOUBT = 0.04
"""What each doubling adds to it by which the scored windows were shorter."""

VALIDATION_SHARE = 0.03
"""Fraction of the training time that one validation takes: the untouched base and the result are
compared on it.
"""

FEWEST_VALIDATED = 256
"""Tokens of that sample at least."""

FEWEST_TRAINED_STEPS = 3
"""Steps below which training is not worth two validations: the base is the result as it is."""

CHECKPOINT_BYTES_PER_SECOND = 250e6
"""Bytes of a checkpoint or a model that are written, confirmed and hashed in a second."""

CHECKPOINT_SHARE = 0.02
"""Fraction of the training time that all checkpoints together may take; else there are none."""

LATE_SECONDS = 4.0
"""Seconds that a run may end late before its hours are refused: what lies ahead is estimated."""

MODEL_COPIES = 3
"""Times that a model is written or hashed between the end of training and its registration."""


@dataclass(frozen=True)
class Start:
    """A base, what was measured of it on a machine, and the time there is to train it on."""

    params: Params
    machine: MachineRate
    base: ModelConfig
    probe: BaseProbe
    time: TimeLeft
    name: str


class Choice(NamedTuple):
    """A way to train a base on: its trainer, speed, tokens and forecast."""

    trainer: TrainerConfig
    tokens_per_second: float
    seconds: float
    bits_per_byte: float
    memory_bytes: int

    @property
    def tokens(self) -> int:
        """Tokens that are read in the time."""
        return int(self.tokens_per_second * self.seconds)


def complete_timings(
    model: ModelConfig, probe: BaseProbe, ways: list[tuple[Tuned, int]]
) -> Iterator[TunedTiming]:
    """Yield the timing of each way: measured, or by its operations from one that was measured."""
    known = {one.tuned: one for one in probe.timings}
    first = probe.timings[0]
    for tuned, layers in ways:
        if tuned in known:
            yield known[tuned]
            continue
        ratio = _cost(model, tuned, layers) / _cost(model, first.tuned, first.num_layers)
        update = max(first.update_seconds, count_trained(model, tuned, 16, layers) / 4e8)
        yield TunedTiming(
            tuned=tuned,
            num_layers=layers,
            token_seconds=ratio * first.token_seconds,
            update_seconds=update,
            frozen_bytes=first.frozen_bytes,
        )


def _cost(model: ModelConfig, tuned: Tuned, layers: int) -> float:
    """Return the operations per token relative to a forward pass: 3, or without the gradients of
    frozen weights, or without a backward pass below the last layers.
    """
    head = model.vocab_size * model.model_dim
    body = count_matrix_parameters(model) - head
    if tuned == "all":
        return 3.0 * (head + body)
    if tuned == "lora":
        return 2.0 * head + 2.1 * body
    return 2.0 * head + body * (1 + 2 * layers / model.num_layers)


def forecast_transfer(bits_per_byte: float, fresh_bytes: float, tuned: Tuned) -> float:
    """Return the bits per byte after what is worth `fresh_bytes` of a text, from those of the base
    untouched.
    """
    worth = WORTH[tuned] * fresh_bytes
    return bits_per_byte * (1 + worth / TRANSFER_SCALE) ** -TRANSFER_EXPONENT


def rank_choices(start: Start, text: TextFacts, model: ModelConfig, seconds: float) -> list[Choice]:
    """Return the ways to train that memory holds, the best forecast first.

    Raises:
        ParameterError: memory holds none.
    """
    params, machine, probe = start.params, start.machine, start.probe
    useful = useful_epochs(text.num_train_bytes) * text.epoch_tokens
    choices = []
    for timing in complete_timings(model, probe, list_tuned(params, model)):
        rough = seconds / timing.token_seconds
        trainer = choose_base_trainer(
            params, machine, model, timing.tuned, timing.num_layers, min(rough, useful)
        )
        step = trainer.batch_tokens * timing.token_seconds + timing.update_seconds
        speed = trainer.batch_tokens / step
        used = min(seconds, useful / speed)
        if params.budget.max_steps is not None:
            used = params.budget.max_steps * step
        seen = used * speed * text.bytes_per_token
        bits = forecast_transfer(probe.bits_per_byte, text.worth_of(seen), timing.tuned)
        memory = base_memory_bytes(model, trainer, timing.frozen_bytes)
        if memory <= usable_memory(machine):
            choices.append(Choice(trainer, speed, used, bits, memory))

    if not choices:
        raise ParameterError(
            f"training this base takes more than the {usable_memory(machine) / 1e9:.1f} GB that "
            "may be used; give start.tuned=lora, a smaller model.context_length or a smaller base"
        )
    return sorted(choices, key=lambda choice: choice.bits_per_byte)


def plan_from_base(
    params: Params,
    text: TextFacts,
    machine: MachineRate,
    base: ModelConfig,
    probe: BaseProbe,
    time: TimeLeft,
    name: str = "the base",
) -> Plan:
    """Return the plan of training that starts from a base, for the time that is left.

    Raises:
        ParameterError: memory does not hold it.
    """
    start = Start(params, machine, base, probe, time, name)
    return settle_shares(text, lambda shared: _plan_shared(start, shared))


def _plan_shared(start: Start, text: TextFacts) -> Plan:
    """Return the plan for a text whose shares of training are settled, where there are several."""
    probe = start.probe
    model = shape_base(
        start.params, start.base, min(text.num_train_tokens, text.num_validation_tokens)
    )
    whole = text.num_scored_tokens / probe.score_tokens_per_second
    closing, scoring, margin = end_run(text, model, probe, start.time)
    left = start.time.seconds - closing
    validation = max(
        FEWEST_VALIDATED / probe.score_tokens_per_second, VALIDATION_SHARE * (left - margin)
    )
    closing += validation  # the last one comes after training
    seconds = max(1.0, left - margin - validation)

    best, *others = rank_choices(start, text, model, seconds)
    trainer = _limit_checkpoints(model, best)
    epochs = best.tokens / max(1, text.epoch_tokens)
    reasons = explain(model, best, probe, start.name)
    doubt = INTERVAL + WINDOW_DOUBT * probe.num_doublings
    return Plan(
        planner="base",
        model=model,
        trainer=trainer,
        num_parameters=count_parameters(model),
        expected_tokens=best.tokens,
        expected_epochs=epochs,
        tokens_per_second=best.tokens_per_second,
        matrix_flops_per_second=start.machine.flops_per_second,
        training_seconds=best.seconds,
        reserve_seconds=closing + margin,
        scoring_reserve_seconds=margin,
        validation_tokens=int(validation * probe.score_tokens_per_second),
        sample_tokens=48 if best.seconds > 60 else 0,
        evaluation_seconds=scoring,
        is_scored_whole=scoring >= whole,
        memory_bytes=best.memory_bytes,
        predicted_bits_per_byte=best.bits_per_byte,
        predicted_low=best.bits_per_byte * (1 - doubt),
        predicted_high=min(probe.bits_per_byte, best.bits_per_byte) * (1 + doubt),
        keep_best=epochs > 1,
        bytes_per_token=text.bytes_per_token,
        difficulty=text.difficulty,
        reasons=reasons,
        alternatives=[
            Alternative(
                summary=f"{_describe(other.trainer)}, {other.tokens:,} tokens",
                predicted_bits_per_byte=other.bits_per_byte,
            )
            for other in others
        ],
    )


class Ending(NamedTuple):
    """Seconds of a run's end: to write and register the model, to score it, and to keep for that
    score.
    """

    closing: float
    scoring: float
    margin: float


def end_run(text: TextFacts, model: ModelConfig, probe: BaseProbe, time: TimeLeft) -> Ending:
    """Return what the end of a run takes."""
    writing = 4 * count_parameters(model) / CHECKPOINT_BYTES_PER_SECOND
    scoring = limit_evaluation(text, probe.score_tokens_per_second, time.seconds)
    closing = time.closing.seconds + MODEL_COPIES * writing
    return Ending(closing, scoring, time.closing.scoring_margin * scoring)


def check_time(
    params: Params, text: TextFacts, base: ModelConfig, probe: BaseProbe, time: TimeLeft, name: str
) -> None:
    """Refuse a budget in which a base could not even be scored and registered as it is.

    Raises:
        ParameterError: naming the smallest hours that work with this base.
    """
    if params.budget.max_steps is not None:
        return
    ending = end_run(text, base, probe, time)
    late = ending.closing + ending.margin - time.seconds
    if late > LATE_SECONDS:
        hours = params.budget.hours + late / SECONDS_PER_HOUR
        raise ParameterError(
            f"budget.hours is {params.budget.hours:g}, of which {max(0.0, time.seconds):.0f} s are "
            f"left, but scoring, writing and registering {name} "
            f"({count(count_parameters(base), 'parameter')}) takes "
            f"{ending.closing + ending.margin:.0f} s here; give --hours "
            f"{math.ceil(1000 * hours) / 1000:g} or more, or a smaller base"
        )


def least_seconds(plan: Plan, probe: BaseProbe) -> float:
    """Return the seconds below which a base is not trained: of a few steps, and of scoring the
    sample before them.
    """
    steps = FEWEST_TRAINED_STEPS * plan.trainer.batch_tokens / plan.tokens_per_second
    return steps + plan.validation_tokens / probe.score_tokens_per_second


def explain(model: ModelConfig, best: Choice, probe: BaseProbe, name: str) -> list[str]:
    """Return the reasons of a plan that starts from a base, a sentence each."""
    trainer = best.trainer
    trained = count_trained(model, trainer.tuned, trainer.lora_rank, trainer.num_tuned_layers)
    return [
        f"{name}, untouched: {probe.describe()}",
        f"{_describe(trainer)} of it ({trained:,} of {count_parameters(model):,} parameters): "
        f"{best.tokens_per_second:,.0f} tokens/s, {best.tokens:,} tokens in {best.seconds:.0f} s",
        "if training does not improve on it, the base's own weights are the result",
    ]


def _limit_checkpoints(model: ModelConfig, choice: Choice) -> TrainerConfig:
    """Return the trainer with as many checkpoints as cost little; perhaps none."""
    trainer = choice.trainer
    trained = count_trained(model, trainer.tuned, trainer.lora_rank, trainer.num_tuned_layers)
    one = 12 * trained / CHECKPOINT_BYTES_PER_SECOND
    most = int(CHECKPOINT_SHARE * choice.seconds / max(one, 1e-9))
    return trainer.model_copy(update={"num_checkpoints": min(trainer.num_checkpoints, most)})


def _describe(trainer: TrainerConfig) -> str:
    if trainer.tuned == "all":
        return "all weights"
    if trainer.tuned == "lora":
        return f"adapters of rank {trainer.lora_rank}"
    return f"the last {count(trainer.num_tuned_layers, 'layer')}"
