from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightlm.data.subset import materialize_subset
from lightlm.data.tokenization.tokenizer import prepare_tokenizer
from lightlm.model.config import ModelConfig
from lightlm.model.hugging_face import export_model
from lightlm.model.transformer import Transformer
from lightlm.params import load_params
from lightlm.store.home import find_home

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


@pytest.fixture
def hugging_face_folder(build: Callable[..., Transformer], tmp_path: Path) -> Callable[..., Path]:
    """Write a small model's Hugging Face folder, with a tokenizer of its size; `num_experts` makes
    it sparse.
    """

    def write(num_experts: int = 0) -> Path:
        text = (
            tmp_path / "text.txt",
            "\n\n".join(f"the old river {i} walks under stone {i * 7}" for i in range(80)),
        )
        text[0].write_text(text[1])

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LIGHTLM_HOME", str(tmp_path / "home"))
            subset = materialize_subset(find_home(), load_params(dataset=str(text[0])).dataset)
            tokenizer = prepare_tokenizer(
                find_home(), load_params().tokenizer, subset, [SHAPE["vocab_size"]]
            )

        model = build(
            **(VARIANTS["experts"] if num_experts else {}),
            **({} if num_experts else {"num_kv_heads": 2}),
        )
        folder = tmp_path / f"model-{num_experts}"
        folder.mkdir()
        export_model(model, tokenizer.folder, folder)

        return folder

    return write
