"""Small models as transformers writes them, with a tokenizer, in folders of the test."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config

from tests import hugging_face_shape

TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['content'] }}{% endfor %}"

SHAPE = hugging_face_shape.SHAPE | {"vocab_size": 256, "bos_token_id": 1, "eos_token_id": 2}
FAMILIES: dict[str, type[PretrainedConfig]] = {"llama": LlamaConfig, "qwen2": Qwen2Config}


def write_tokenizer(folder: Path) -> None:
    """Write a byte-level tokenizer with a chat's special tokens, and without a token for byte 4."""
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols.remove(chr(256 + 4))
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocab = {token: index for index, token in enumerate([*special, *symbols[:-2]])}
    vocab |= {symbol: len(vocab) + index for index, symbol in enumerate(symbols[-2:])}
    engine = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    engine.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    engine.add_special_tokens([AddedToken(token, special=True) for token in special])
    engine.save(str(folder / "tokenizer.json"))
    values = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "bos_token": "<|im_start|>",
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(values), encoding="utf-8")


def save_base(
    folder: Path, family: str = "llama", dtype: torch.dtype = torch.float32, **change: Any
) -> Path:
    """Write the Hugging Face folder of a small model that somebody else might have trained."""
    values: dict[str, Any] = {**SHAPE, "vocab_size": 258, **change}
    model = AutoModelForCausalLM.from_config(FAMILIES[family](**values))
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * 0.1 + (weight.dim() == 1))
    model.to(dtype).save_pretrained(folder)
    write_tokenizer(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlanguage:\n- en\n---\n# A base\n")
    return folder


@pytest.fixture
def write_base(tmp_path: Path) -> Callable[..., Path]:
    """Write a base into a folder of the test."""
    return lambda family="llama", **change: save_base(tmp_path / f"base-{family}", family, **change)
