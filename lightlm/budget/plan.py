"""The plan: shape, rates, batch, time and reasons, for a machine, a text and a budget."""

from typing import Annotated

from pydantic import AliasChoices, BaseModel, Field

from lightlm.model.config import ModelConfig
from lightlm.quantities import count
from lightlm.training.config import TrainerConfig


class Alternative(BaseModel, frozen=True, allow_inf_nan=False):
    """A plan that was not taken, in a line, and the bits per byte predicted for it."""

    summary: str
    predicted_bits_per_byte: float


class CountsPlan(BaseModel, frozen=True, allow_inf_nan=False):
    """Count tables of the text: their name in the store, the score of counting alone, and the one
    predicted for network and counts together. `is_mixed`: the version gets the tables.
    """

    fingerprint: str
    num_tokens: int
    counting_bits_per_byte: float
    is_mixed: bool = False
    predicted_bits_per_byte: float = 0.0
    predicted_low: float = 0.0
    predicted_high: float = 0.0


class TextPlan(BaseModel, frozen=True, allow_inf_nan=False):
    """A text's part of the training: its share, the tokens that are read, and how often."""

    name: str
    share: float
    tokens: int
    epochs: float

    def describe(self) -> str:
        """Return "classic-books 30 % (0.2 epochs)"."""
        return f"{self.name} {self.share:.1%} ({self.epochs:.1f} epochs)"


class Plan(
    BaseModel,
    serialize_by_alias=True,
    frozen=True,
    extra="forbid",
    allow_inf_nan=False,
):
    """What to train, for how long, and why. Times in seconds; predictions in bits per byte, of the
    network alone.
    """

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
    is_scored_whole: bool = True
    """Whether `evaluation_seconds` suffice for all of the held-out text."""
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
    counts: CountsPlan | None = None
    texts: list[TextPlan] = []
    """What each text gets, where there are several; `expected_epochs` are those of the first."""
    reasons: list[str]
    alternatives: list[Alternative]

    @property
    def is_mixed(self) -> bool:
        """Whether the version gets count tables."""
        return self.counts is not None and self.counts.is_mixed

    @property
    def predictions(self) -> tuple[float, float, float]:
        """Middle, low and high of what `generate` will use: of both together where they are."""
        best = self.counts if self.counts is not None and self.counts.is_mixed else self
        return best.predicted_bits_per_byte, best.predicted_low, best.predicted_high

    def format_prediction(self) -> str:
        """Return "1.695 (1.640 to 1.750)"."""
        middle, low, high = self.predictions
        return f"{middle:.3f} ({low:.3f} to {high:.3f})"

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
