"""How a base is trained on: its context, what is tuned, the batches and rates, and the memory.

The rates are customary ones; benchmarks/start.py --sweep compares them on a machine. No torch.
"""

import math

from lightlm.budget.memory import MEMORY_FRACTION, Fit, choose_attention, choose_fit
from lightlm.budget.probe import MachineRate
from lightlm.errors import ParameterError
from lightlm.model.accounting import count_parameters, process_bytes, training_memory_bytes
from lightlm.model.config import ModelConfig
from lightlm.params import Params
from lightlm.training.config import ADAMW_MATRIX_SHARE, TrainerConfig, Tuned

CONTEXT = 512
"""Tokens of a sequence, where params give none and the base reads as many."""

SHORTEST_CONTEXT = 64

TRAINED_BYTES = 12
"""Bytes of a trained parameter besides its own: its gradient and AdamW's two moments."""

LAST_SHARE = 0.5
"""Fraction of the layers that `last` tunes, where params give no number."""

RATES = {"all": 1e-4, "lora": 1e-3, "last": 2e-4}
"""AdamW's peak rates at batches of RATE_BATCH tokens."""

RATE_BATCH = 2048
RATE_EXPONENT = 0.5

WARMUP_FRACTION = 0.1

MOST_STEPS = 400
FEWEST_STEPS = 24
"""Steps that a batch is chosen for, at most and at least, where time allows."""

MOST_SEQUENCES = 64

NUM_VALIDATIONS = 3


def shape_base(params: Params, base: ModelConfig, num_tokens: int | None = None) -> ModelConfig:
    """Return the base's shape with the context that it is trained and scored in.

    Raises:
        ParameterError: params demand a longer context than the base reads.
    """
    longest = base.longest_context or base.context_length
    wanted = params.model.context_length
    if wanted is not None and wanted > longest:
        raise ParameterError(
            f"model.context_length is {wanted}, but the base reads {longest} tokens; give at most "
            "as many"
        )
    context = wanted or min(CONTEXT, longest)
    while wanted is None and num_tokens and context > SHORTEST_CONTEXT and context >= num_tokens:
        context //= 2
    return base.model_copy(
        update={
            "context_length": context,
            "longest_context": longest if longest > context else None,
        }
    )


def list_tuned(params: Params, model: ModelConfig) -> list[tuple[Tuned, int]]:
    """Return the ways to tune that params allow, each with its layers, in the order of timing."""
    layers = params.start.num_tuned_layers or max(1, round(LAST_SHARE * model.num_layers))
    number = min(layers, model.num_layers)
    ways: dict[Tuned, int] = {"lora": 0, "all": 0, "last": number}
    if model.is_mixture_of_experts:
        del ways["lora"]  # its experts have none
    wanted = params.start.tuned
    if wanted == "auto":
        return list(ways.items())
    if wanted not in ways:
        raise ParameterError("start.tuned is lora, which a mixture of experts has not; give all")
    return [(wanted, ways[wanted])]


def count_trained(model: ModelConfig, tuned: Tuned, rank: int, layers: int) -> int:
    """Return how many parameters are trained."""
    if tuned == "all":
        return count_parameters(model)
    dim = model.model_dim
    rows = model.head_dim * (model.num_heads + 2 * model.num_kv_heads)
    wide = model.head_dim * model.num_heads
    if tuned == "lora":
        sides = (dim + rows) + (wide + dim) + (dim + 2 * model.ffn_dim) + (model.ffn_dim + dim)
        return model.num_layers * rank * sides
    tables = model.vocab_size * dim * (1 if model.tie_embeddings else 2)
    return dim + layers * ((count_parameters(model) - tables - dim) // model.num_layers)


def choose_base_trainer(
    params: Params,
    machine: MachineRate,
    model: ModelConfig,
    tuned: Tuned,
    layers: int,
    expected_tokens: float,
) -> TrainerConfig:
    """Return how a base is trained on for about so many tokens."""
    context = model.context_length
    steps = params.budget.max_steps or min(
        MOST_STEPS, max(FEWEST_STEPS, math.sqrt(expected_tokens / context) * 4)
    )
    sequences = max(1, min(MOST_SEQUENCES, round(expected_tokens / steps / context)))
    training = params.training
    if training.batch_tokens is not None:
        sequences = max(1, training.batch_tokens // context)

    fit = fit_base(params, machine, model, sequences, count_frozen(params, model, tuned, layers))
    scale = (sequences * context / RATE_BATCH) ** RATE_EXPONENT
    peak = params.start.learning_rate or RATES[tuned] * min(2.0, scale)
    peak *= training.learning_rate_scale
    is_large = 4 * count_trained(model, tuned, params.start.lora_rank, layers) > 4e9
    return TrainerConfig(
        optimizer="adamw",
        seed=training.seed,
        batch_tokens=sequences * context,
        micro_batch_size=fit.micro_batch_size,
        matrix_learning_rate=peak / ADAMW_MATRIX_SHARE,
        embedding_learning_rate=peak,
        head_learning_rate=peak,
        gain_learning_rate=peak,
        adam_beta1=0.9,
        adam_beta2=0.95 if is_large else 0.98,
        weight_decay=training.weight_decay or 0.0,
        dropout=training.dropout or 0.0,
        warmup_fraction=max(training.warmup_fraction, WARMUP_FRACTION),
        cooldown_fraction=training.cooldown_fraction,
        gradient_clip_norm=training.gradient_clip_norm,
        dtype=machine.dtype,
        gradient_checkpointing=fit.is_recomputed,
        sharding=fit.sharding if tuned == "all" else "off",
        attention=choose_attention(params, machine, model),
        tuned=tuned,
        lora_rank=params.start.lora_rank,
        num_tuned_layers=max(1, layers),
        device=machine.device,
        num_threads=machine.num_threads,
        num_devices=machine.num_devices if tuned == "all" else 1,
        num_nodes=training.num_nodes if tuned == "all" else 1,
        max_steps=params.budget.max_steps,
        num_validations=min(training.num_validations, NUM_VALIDATIONS),
        num_checkpoints=training.num_checkpoints,
        sample_prompt=training.sample_prompt,
    )


def count_frozen(params: Params, model: ModelConfig, tuned: Tuned, layers: int) -> int:
    """Return how many parameters are left as they are."""
    trained = count_trained(model, tuned, params.start.lora_rank, layers)
    return max(0, count_parameters(model) - trained)


def fit_base(
    params: Params, machine: MachineRate, model: ModelConfig, sequences: int, num_frozen: int = 0
) -> Fit:
    """Return how a batch fits into memory, `num_frozen` of whose weights have no gradient and no
    moments; a CPU gains nothing from more than a few sequences.
    """
    spared = int(TRAINED_BYTES * num_frozen / MEMORY_FRACTION)
    roomy = machine.model_copy(update={"memory_bytes": machine.memory_bytes + spared})
    fit = choose_fit(params, roomy, model, sequences)
    if machine.device != "cpu":
        return fit
    micro = min(fit.micro_batch_size, params.training.micro_batch_size or 4)
    while sequences % micro:
        micro -= 1
    return fit._replace(micro_batch_size=micro)


def base_memory_bytes(model: ModelConfig, trainer: TrainerConfig, frozen_bytes: int = 4) -> int:
    """Return the peak bytes of training a base: frozen weights, of `frozen_bytes` each, have no
    gradient and no moments.
    """
    frozen = count_parameters(model) - count_trained(
        model, trainer.tuned, trainer.lora_rank, trainer.num_tuned_layers
    )
    num_shards = trainer.num_devices * trainer.num_nodes if trainer.sharding == "fsdp" else 1
    whole = training_memory_bytes(
        model,
        trainer.micro_batch_size,
        "adamw",
        device=trainer.device,
        dtype=trainer.dtype,
        attention=trainer.attention,
        is_recomputed=trainer.gradient_checkpointing,
        num_shards=num_shards,
    )
    return (
        process_bytes(trainer.device)
        + whole
        - (4 + TRAINED_BYTES - frozen_bytes) * max(0, frozen) // num_shards
    )
