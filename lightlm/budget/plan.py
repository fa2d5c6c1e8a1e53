"""The plan: shape, rates, batch, time and reasons, for a machine, a text and a budget."""

from typing import Annotated

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from lightlm.counting import count
from lightlm.model.config import ModelConfig
from lightlm.training.config import TrainerConfig


class Alternative(BaseModel):
    """A plan that was not taken, in a line, and the bits per byte predicted for it."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    summary: str
    predicted_bits_per_byte: float


class Plan(BaseModel):
    """What to train, for how long, and why. Times in seconds; predictions in bits per byte."""

    model_config = ConfigDict(
        serialize_by_alias=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    planner: str
    model: ModelConfig
    trainer: TrainerConfig
    num_parameters: int
    expected_tokens: int
    expected_epochs: float
    tokens_per_second: Annotated[float, Field(gt=0)]
    matrix_flops_per_second: float
    training_seconds: float
    reserve_seconds: float
    scoring_reserve_seconds: float = 0.0
    """Seconds of the reserve that are kept for the final score."""
    validation_tokens: int
    sample_tokens: int
    evaluation_seconds: float
    memory_bytes: int
    predicted_bits_per_byte: float
    predicted_low: float
    predicted_high: float
    keep_best: bool
    bytes_per_token: float = Field(
        0.0,
        validation_alias=AliasChoices("bytes_per_token", "bytes_a_token"),
        serialization_alias="bytes_a_token",
    )
    difficulty: float = Field(
        1.0,
        validation_alias=AliasChoices("difficulty", "hardness"),
        serialization_alias="hardness",
    )
    speed_correction: float = 1.0
    reasons: list[str]
    alternatives: list[Alternative]

    def summary(self) -> str:
        """Return the shape in a line."""
        return summarize_shape(self.model)


def summarize_shape(model: ModelConfig) -> str:
    """Return "4 layers x 256 dims, 4 heads, vocabulary 2,048, context 128"."""
    experts = (
        f", {model.num_active_experts} of {model.num_experts} experts"
        if model.is_mixture_of_experts
        else ""
    )
    return (
        f"{count(model.num_layers, 'layer')} x {model.model_dim} dims, "
        f"{count(model.num_heads, 'head')}, "
        f"vocabulary {model.vocab_size:,}, context {model.context_length:,}{experts}"
    )
