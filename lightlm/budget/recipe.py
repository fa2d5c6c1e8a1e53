"""The recipe of training a shape on a machine: batch, rates, regularization, precision, kernel."""

from lightlm.budget.memory import choose_attention, choose_fit
from lightlm.budget.probe import MachineRate, TimedShape
from lightlm.budget.scaling import (
    choose_batch_tokens,
    choose_context_ramp,
    choose_learning_rates,
    choose_regularization,
)
from lightlm.model.accounting import count_matrix_parameters
from lightlm.model.config import ModelConfig
from lightlm.params import Params
from lightlm.training.config import TrainerConfig


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
    variant: TimedShape | None = None,
) -> TrainerConfig:
    """Return the trainer's config for `expected_tokens` of training on a text of `train_tokens`.

    `batch_tokens` is given if layers are compiled for it already, `variant` if a timing showed a
    faster one.
    """
    training = params.training
    batch_tokens = (
        training.batch_tokens
        or batch_tokens
        or choose_batch_tokens(expected_tokens, model.context_length, machine.device)
    )

    sequences = max(1, batch_tokens // model.context_length)
    rates = choose_learning_rates(
        sequences * model.context_length, model.model_dim, training.learning_rate_scale
    )
    steps = max_steps or params.budget.max_steps
    # With fixed steps, the recipe must not depend on the speed, which varies a little.
    read_tokens = expected_tokens if steps is None else steps * sequences * model.context_length
    regularization = choose_regularization(
        read_tokens / max(1, train_tokens), count_matrix_parameters(model) / max(1, train_tokens)
    )

    ramp = choose_context_ramp(model.context_length, is_compiled=is_compiled)
    fit = choose_fit(params, machine, model, sequences, variant)
    return TrainerConfig(
        optimizer=training.optimizer,
        seed=training.seed,
        batch_tokens=sequences * model.context_length,
        micro_batch_size=fit.micro_batch_size,
        matrix_learning_rate=rates.matrix,
        embedding_learning_rate=rates.embedding,
        head_learning_rate=rates.head,
        gain_learning_rate=rates.gain,
        weight_decay=_take(training.weight_decay, regularization.weight_decay),
        dropout=_take(training.dropout, regularization.dropout),
        warmup_fraction=training.warmup_fraction,
        cooldown_fraction=training.cooldown_fraction,
        context_ramp_fraction=_take(training.context_ramp_fraction, ramp),
        gradient_clip_norm=training.gradient_clip_norm,
        dtype=machine.dtype,
        compile=is_compiled,
        gradient_checkpointing=fit.is_recomputed,
        sharding=fit.sharding,
        attention=choose_attention(params, machine, model, variant),
        device=machine.device,
        num_threads=machine.num_threads,
        num_devices=machine.num_devices,
        num_nodes=training.num_nodes,
        max_steps=steps,
        num_validations=training.num_validations,
        num_checkpoints=training.num_checkpoints,
        sample_prompt=training.sample_prompt,
    )


def _take(given: float | None, rule: float) -> float:
    """Return the value that params give, else that of the rule."""
    return rule if given is None else given
