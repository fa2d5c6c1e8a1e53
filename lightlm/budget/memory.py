"""How a shape fits into memory: sequences at a time, then shards over the ranks, then recomputed
layers.

The bytes of a shape are arithmetic (model.accounting); no torch.
"""

from typing import Literal, NamedTuple

from lightlm.budget.probe import MachineRate, TimedShape
from lightlm.errors import ParameterError
from lightlm.model.accounting import process_bytes, training_memory_bytes
from lightlm.model.config import ModelConfig
from lightlm.params import Params
from lightlm.training.config import Attention, TrainerConfig

MEMORY_FRACTION = 0.8
"""Fraction of the free memory that training may take; the rest is for other processes."""

MATMUL_CONTEXT = 512
"""Tokens up to which attention by plain products beats the flash kernel on a CPU: 3x in training at
128, 2x at 512 (bf16, 2 EPYC cores, November 2026).
"""

RECOMPUTED_SPEED = 0.77
"""Factor on the speed with recomputed layers: four passes' products in them instead of three."""

_RECOMPUTED = {"auto": (False, True), "on": (True,), "off": (False,)}


class Fit(NamedTuple):
    """The means by which a shape fits."""

    is_recomputed: bool
    sharding: Literal["off", "fsdp"]
    micro_batch_size: int


def usable_memory(machine: MachineRate) -> float:
    """Return the bytes that training may take in one process; those of a CPU share its memory."""
    return (
        MEMORY_FRACTION
        * machine.memory_bytes
        / (machine.num_devices if machine.device == "cpu" else 1)
    )


def choose_attention(
    params: Params, machine: MachineRate, model: ModelConfig, variant: TimedShape | None = None
) -> Attention:
    """Return the attention kernel: flash if demanded, that of the fastest timing, or by rule."""
    if params.model.flash_attention:
        return "flash"
    if variant is not None and variant.attention is not None:
        return variant.attention
    return (
        "matmul" if machine.device == "cpu" and model.context_length <= MATMUL_CONTEXT else "sdpa"
    )


def choose_fit(
    params: Params,
    machine: MachineRate,
    model: ModelConfig,
    sequences: int = 1,
    variant: TimedShape | None = None,
) -> Fit:
    """Return how a batch of `sequences` is computed: the cheapest means that fits, or all of them.

    It computes no more sequences at a time than the fastest variant that was timed. Fewer sequences
    cost next to nothing, shards cost messages, a second forward pass a quarter of the speed.

    Raises:
        ParameterError: shards are demanded where one process trains.
    """
    num_ranks = machine.num_devices * params.training.num_nodes
    fit = Fit(False, "off", 1)
    most = params.training.micro_batch_size or (variant and variant.micro_batch_size) or sequences

    for is_recomputed in _RECOMPUTED[params.training.gradient_checkpointing]:
        for sharding in list_shardings(params, machine):
            fit = Fit(is_recomputed, sharding, 1)
            micro = min(most, -(-sequences // num_ranks))
            while micro > 1 and not _is_within(
                params, machine, model, fit._replace(micro_batch_size=micro), variant
            ):
                micro = (micro + 1) // 2
            while sequences % micro:
                micro -= 1
            fit = fit._replace(micro_batch_size=micro)
            if _is_within(params, machine, model, fit, variant):
                return fit

    return fit


def fits(params: Params, machine: MachineRate, model: ModelConfig) -> bool:
    """Return whether a shape can be trained here, one sequence at a time, by any means allowed."""
    return _is_within(params, machine, model, choose_fit(params, machine, model))


def list_shardings(params: Params, machine: MachineRate) -> tuple[Literal["off", "fsdp"], ...]:
    """Return the ways to lay weights out over the ranks, the cheapest first.

    Raises:
        ParameterError: shards are demanded where one process trains.
    """
    wanted = params.training.sharding
    is_alone = machine.num_devices * params.training.num_nodes == 1
    if wanted == "fsdp" and is_alone:
        raise ParameterError(
            "training.sharding is fsdp, but one process trains, so that there is nothing to shard; "
            "give training.devices=2 or more (training.num_nodes for machines), or "
            "training.sharding=auto"
        )

    if wanted == "auto":
        return ("off",) if is_alone else ("off", "fsdp")

    return (wanted,)


def plan_memory_bytes(
    model: ModelConfig, trainer: TrainerConfig, *, keep_best: bool = False
) -> int:
    """Return the peak bytes expected of a training process: on a CPU all of the process."""
    num_shards = trainer.num_devices * trainer.num_nodes if trainer.sharding == "fsdp" else 1
    return process_bytes(trainer.device, is_compiled=trainer.compile) + training_memory_bytes(
        model,
        trainer.micro_batch_size,
        trainer.optimizer,
        device=trainer.device,
        dtype=trainer.dtype,
        attention=trainer.attention,
        is_compiled=trainer.compile,
        is_recomputed=trainer.gradient_checkpointing,
        num_shards=num_shards,
        keep_best=keep_best,
    )


def _is_within(
    params: Params,
    machine: MachineRate,
    model: ModelConfig,
    fit: Fit,
    variant: TimedShape | None = None,
) -> bool:
    num_ranks = machine.num_devices * params.training.num_nodes
    needed = process_bytes(machine.device) + training_memory_bytes(
        model,
        fit.micro_batch_size,
        params.training.optimizer,
        device=machine.device,
        dtype=machine.dtype,
        attention=choose_attention(params, machine, model, variant),
        is_recomputed=fit.is_recomputed,
        num_shards=num_ranks if fit.sharding == "fsdp" else 1,
        keep_best=True,  # not known yet; the safe side
    )

    return needed <= usable_memory(machine)
