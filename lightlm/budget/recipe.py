"""The recipe: how a shape is trained on a machine: batch, rates, regularisation, precision, attention kernel."""

from lightlm.budget.probe import MachineRate, TimedShape
from lightlm.budget.scaling import choose_batch_tokens, choose_learning_rates, choose_regularization
from lightlm.model.accounting import count_matrix_parameters, training_memory_bytes
from lightlm.model.config import ModelConfig
from lightlm.params import Params
from lightlm.training.config import Attention, TrainerConfig

MEMORY_FRACTION = 0.8
"""Of the memory that is free; the rest is the system's and the other processes'."""

MATMUL_CONTEXT = 512
"""Tokens up to which attention by plain products beats the flash kernel on a CPU: 3x in training at 128, 2x at 512
(bf16, 2 EPYC cores, November 2026)."""


def choose_trainer(
    params: Params,
    machine: MachineRate,
    model: ModelConfig,
    *,
    expected_tokens: float,
    train_tokens: int,
    is_compiled: bool,
    max_steps: int | None,
    batch_tokens: int | None = None,
    way: TimedShape | None = None,
) -> TrainerConfig:
    """Return the trainer's config for `expected_tokens` of training on a text of `train_tokens`.

    `batch_tokens` is given where layers are compiled for it already, `way` where a timing showed a faster one.
    """
    training = params.training
    batch_tokens = training.batch_tokens or batch_tokens or choose_batch_tokens(expected_tokens, model.context_length)
    sequences = max(1, batch_tokens // model.context_length)
    rates = choose_learning_rates(sequences * model.context_length, model.model_dim, training.learning_rate_scale)
    regularization = choose_regularization(
        expected_tokens / max(1, train_tokens), count_matrix_parameters(model) / max(1, train_tokens)
    )
    return TrainerConfig(
        optimizer=training.optimizer,
        seed=training.seed,
        batch_tokens=sequences * model.context_length,
        micro_batch_size=choose_micro_batch(params, machine, model, sequences, way and way.micro_batch_size),
        matrix_learning_rate=rates.matrix,
        embedding_learning_rate=rates.embedding,
        head_learning_rate=rates.head,
        gain_learning_rate=rates.gain,
        weight_decay=regularization.weight_decay if training.weight_decay is None else training.weight_decay,
        dropout=regularization.dropout if training.dropout is None else training.dropout,
        warmup_fraction=training.warmup_fraction,
        cooldown_fraction=training.cooldown_fraction,
        gradient_clip_norm=training.gradient_clip_norm,
        dtype=machine.dtype,
        compile=is_compiled,
        attention=choose_attention(params, machine, model, way and way.attention),
        device=machine.device,
        num_threads=machine.num_threads,
        num_devices=machine.num_devices,
        num_nodes=training.num_nodes,
        max_steps=max_steps or params.budget.max_steps,
        num_validations=training.num_validations,
        num_checkpoints=training.num_checkpoints,
        sample_prompt=training.sample_prompt,
    )


def choose_micro_batch(
    params: Params, machine: MachineRate, model: ModelConfig, sequences: int, fastest: int | None = None
) -> int:
    """Return how many sequences of a batch are computed at once: what fits into memory, a divisor of the batch."""
    micro = min(params.training.micro_batch_size or fastest or sequences, sequences)
    while micro > 1 and training_memory_bytes(model, micro, params.training.optimizer) > usable_memory(machine):
        micro = (micro + 1) // 2
    while sequences % micro:
        micro -= 1
    return micro


def choose_attention(
    params: Params, machine: MachineRate, model: ModelConfig, fastest: Attention | None = None
) -> Attention:
    """Return the attention kernel: flash where it is demanded, else the fastest."""
    if params.model.flash_attention:
        return "flash"
    if fastest is not None:
        return fastest
    return "matmul" if machine.device == "cpu" and model.context_length <= MATMUL_CONTEXT else "sdpa"


def usable_memory(machine: MachineRate) -> float:
    """Return the bytes that training may take."""
    return MEMORY_FRACTION * machine.memory_bytes
