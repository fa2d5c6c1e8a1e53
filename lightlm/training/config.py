"""The trainer's configuration: rates, batch, precision and seeds, complete and machine-readable.

The shape is in model.config; the time is the caller's.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

Attention = Literal["sdpa", "flash", "matmul"]
"""The kernel: PyTorch's own choice, its flash kernel, or plain matrix products."""


ADAMW_MATRIX_SHARE = 0.1
"""Factor on Muon's rate for AdamW's matrices: unit size per entry, not per singular value."""

Tuned = Literal["all", "lora", "last"]
"""The weights that are trained: all, adapters of low rank, or those of the last layers."""


class TrainerConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """The trainer's settings besides the model's shape, the batches and the clock."""

    optimizer: Literal["muon", "adamw"] = "muon"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    batch_tokens: Annotated[int, Field(ge=8)]
    micro_batch_size: Annotated[int, Field(ge=1)]
    matrix_learning_rate: Annotated[float, Field(gt=0)] = 0.02
    embedding_learning_rate: Annotated[float, Field(gt=0)] = 0.03
    head_learning_rate: Annotated[float, Field(gt=0)] = 0.003
    gain_learning_rate: Annotated[float, Field(gt=0)] = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.8
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    warmup_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.02
    cooldown_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    context_ramp_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Fraction of the budget, at its start, with sequences half as long and twice as many."""
    gradient_clip_norm: Annotated[float, Field(gt=0)] = 1.0
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    compile: bool = False
    gradient_checkpointing: bool = False
    """Whether layers keep their input only and are computed again in the backward pass."""
    sharding: Literal["off", "fsdp"] = "off"
    """fsdp: each rank holds its rows of all weights, gradients and moments."""
    attention: Attention = "sdpa"
    tuned: Tuned = "all"
    lora_rank: Annotated[int, Field(ge=1, le=1024)] = 16
    num_tuned_layers: Annotated[int, Field(ge=1, le=512)] = 1
    """Layers from the last one down that are trained, where `tuned` is last."""
    device: str = "cpu"
    num_threads: Annotated[int, Field(ge=1)] = 1
    num_devices: Annotated[int, Field(ge=1, le=1024)] = 1
    num_nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    max_steps: Annotated[int, Field(ge=1)] | None = None
    num_validations: Annotated[int, Field(ge=1)] = 8
    num_checkpoints: Annotated[int, Field(ge=0)] = 4
    """Checkpoints besides the last; 0: none, and no last one."""
    sample_prompt: str = "The"
