"""The shape of a model: ModelConfig, in the field's names, laid out as Qwen3 (Qwen3-MoE with
experts), or as Llama or Qwen2 where it starts from such a model.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

Family = Literal["qwen3", "llama", "qwen2"]
"""Layout of a layer: Qwen3 normalizes queries and keys, Qwen2 adds a bias to queries, keys and
values, Llama does neither.
"""


class RopeScaling(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How rotary frequencies are stretched for a longer context.

    `linear` divides all by `factor`; `llama3` divides the slow ones alone. Source: transformers,
    modeling_rope_utils.py.
    """

    kind: Literal["linear", "llama3"]
    factor: Annotated[float, Field(ge=1, le=1024)]
    low_frequency_factor: Annotated[float, Field(gt=0, le=1024)] = 1.0
    high_frequency_factor: Annotated[float, Field(gt=0, le=1024)] = 4.0
    original_context_length: Annotated[int, Field(ge=8, le=1_048_576)] = 8192

    @model_validator(mode="after")
    def check_factors(self) -> Self:
        """Refuse bounds that leave nothing between them."""
        if self.high_frequency_factor <= self.low_frequency_factor:
            raise ValueError(
                f"high_frequency_factor {self.high_frequency_factor} is not more than "
                f"low_frequency_factor {self.low_frequency_factor}; give a larger one"
            )
        return self


class ModelConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """The shape of one decoder-only transformer. `num_experts` 0 is a dense model."""

    vocab_size: Annotated[int, Field(ge=257, le=1_048_576)]
    num_layers: Annotated[int, Field(ge=1, le=512)]
    model_dim: Annotated[int, Field(ge=8, le=65_536)]
    num_heads: Annotated[int, Field(ge=1, le=1024)]
    num_kv_heads: Annotated[int, Field(ge=1, le=1024)]
    head_dim: Annotated[int, Field(ge=2, le=1024)]
    ffn_dim: Annotated[int, Field(ge=8, le=262_144)]
    context_length: Annotated[int, Field(ge=8, le=1_048_576)]
    tie_embeddings: bool = False
    rope_theta: Annotated[float, Field(gt=1)] = 10_000.0
    norm_epsilon: Annotated[float, Field(gt=0)] = 1e-6
    num_experts: Annotated[int, Field(ge=0, le=1024)] = 0
    num_active_experts: Annotated[int, Field(ge=0, le=1024)] = 0
    expert_ffn_dim: Annotated[int, Field(ge=0, le=262_144)] = 0
    balance_loss_weight: Annotated[float, Field(ge=0)] = 0.01
    family: Family = "qwen3"
    rope_scaling: RopeScaling | None = None
    longest_context: Annotated[int, Field(ge=8, le=16_777_216)] | None = None
    """Tokens that the model it started from reads, where that is more than `context_length`."""

    @property
    def has_head_norms(self) -> bool:
        """Whether queries and keys of each head are normalized."""
        return self.family == "qwen3"

    @property
    def has_bias(self) -> bool:
        """Whether queries, keys and values have a bias."""
        return self.family == "qwen2"

    @property
    def is_mixture_of_experts(self) -> bool:
        """Whether the feed-forward of each layer is a mixture of experts."""
        return self.num_experts > 0

    @model_validator(mode="after")
    def check_shape(self) -> Self:
        """Refuse dimensions that do not fit together."""
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads {self.num_heads} is not a multiple of num_kv_heads "
                f"{self.num_kv_heads}; give num_kv_heads a divisor of {self.num_heads}"
            )

        if self.head_dim % 2:
            raise ValueError(
                f"head_dim {self.head_dim} is odd; rotary positions turn pairs of dimensions, so "
                "give an even head_dim"
            )

        if self.num_experts and self.family != "qwen3":
            raise ValueError(f"family {self.family} has no experts; give num_experts 0")

        if self.num_experts and not (
            1 <= self.num_active_experts <= self.num_experts and self.expert_ffn_dim >= 8
        ):
            raise ValueError(
                f"num_experts {self.num_experts} wants num_active_experts in 1..{self.num_experts} "
                f"and expert_ffn_dim >= 8, got {self.num_active_experts} and {self.expert_ffn_dim}"
            )

        return self
