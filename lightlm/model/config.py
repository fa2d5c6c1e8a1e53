"""The shape of a model: ModelConfig, in the field's names, laid out as Qwen3 (Qwen3-MoE with
experts).
"""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ModelConfig(BaseModel):
    """The shape of one decoder-only transformer. `num_experts` 0 is a dense model."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )

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

        if self.num_experts and not (
            1 <= self.num_active_experts <= self.num_experts and self.expert_ffn_dim >= 8
        ):
            raise ValueError(
                f"num_experts {self.num_experts} wants num_active_experts in 1..{self.num_experts} "
                f"and expert_ffn_dim >= 8, got {self.num_active_experts} and {self.expert_ffn_dim}"
            )

        return self
