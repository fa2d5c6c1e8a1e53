from collections.abc import Callable
from typing import Any

import pytest
import torch

from lightlm.model.config import ModelConfig
from lightlm.model.transformer import Transformer

SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "num_layers": 2,
    "model_dim": 32,
    "num_heads": 4,
    "num_kv_heads": 4,
    "head_dim": 8,
    "ffn_dim": 48,
    "context_length": 64,
}

VARIANTS: dict[str, dict[str, Any]] = {
    "dense": {},
    "grouped queries": {"num_kv_heads": 2},
    "tied": {"tie_embeddings": True},
    "wide heads": {"head_dim": 12},
    "experts": {"num_experts": 4, "num_active_experts": 2, "expert_ffn_dim": 24},
}


@pytest.fixture
def build() -> Callable[..., Transformer]:
    """Build a small model whose every weight matters: none at zero, no gain at one."""

    def build_model(kernel: str = "sdpa", **change: Any) -> Transformer:
        model = Transformer(ModelConfig(**(SHAPE | change)), kernel=kernel)
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(torch.randn(weight.shape, generator=draw) * 0.2 + (weight.dim() == 1))
        return model.eval()

    return build_model


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def variant(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param
