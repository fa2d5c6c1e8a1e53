"""The model as an ONNX graph with a key/value cache, for ONNX Runtime, its generate() library and
transformers.js.

Names and shapes are optimum's: `input_ids`, `attention_mask`, `position_ids` and
`past_key_values.N.key` and `.value` in, `logits` and `present.N.key` and `.value` out, all fp32.
"""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightlm.errors import ModelVersionError
from lightlm.json_object import JsonObject
from lightlm.model.attention import KVCache, rotary_table
from lightlm.model.config import ModelConfig
from lightlm.model.tensors import BHTD, BKSD, BKTD
from lightlm.model.transformer import Transformer

FILE = "onnx/model.onnx"
"""Where transformers.js and optimum look for the graph in a folder."""

GENAI_FILE = "genai_config.json"


class GraphCache(KVCache):
    """A cache that grows by concatenation, and a mask of any form, as a graph expresses them.

    `visible` (B, 1, T, S): whether a new position sees each of the past and new ones.
    """

    def __init__(self, keys: list[Tensor], values: list[Tensor], visible: Tensor) -> None:
        super().__init__(keys, values)
        self.visible = visible
        self.present: list[Tensor] = []

    def extend(self, layer: int, keys: BKTD, values: BKTD) -> tuple[BKSD, BKSD]:
        """Return past and new keys and values, which become the graph's outputs."""
        keys = torch.cat((self.keys[layer], keys), dim=2)
        values = torch.cat((self.values[layer], values), dim=2)
        self.present += [keys, values]
        return keys, values

    def attend(self, query: BHTD, keys: BKSD, values: BKSD) -> BHTD:
        """Return attention by two products of matrices, each head's query with its group's keys."""
        batch, heads, length, dim = query.shape
        groups = keys.shape[1]
        query = query.reshape(batch, groups, -1, dim)  # (B, K, H / K * T, D)
        scores = query @ keys.transpose(-1, -2) * dim**-0.5
        scores = scores.view(batch, heads, length, -1)
        # Not -inf: a row of padding sees nothing, and its softmax would be NaN.
        scores = scores.masked_fill(~self.visible, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1).view(batch, groups, -1, keys.shape[2])
        return (weights @ values).view(batch, heads, length, dim)


class CachedLogits(torch.nn.Module):
    """The function of the graph."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        *past_key_values: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return the logits (B, T, V) of new ids (B, T), then keys and values of past and new ones.

        `attention_mask` (B, P + T) is 1 where there is a token, 0 where there is padding;
        `past_key_values` are key and value of each layer, (B, K, P, D).
        """
        model = self.model
        new = input_ids.shape[1]
        filled = attention_mask.shape[1]
        places = torch.arange(filled, device=input_ids.device)
        is_past = places[None] <= places[filled - new :, None]  # (T, S)
        visible = is_past[None, None] & attention_mask.bool()[:, None, None]

        cache = GraphCache(list(past_key_values[::2]), list(past_key_values[1::2]), visible)
        cosine, sine = rotary_table(model.config, position_ids[:, None])  # (B, 1, T, D)
        x = torch.nn.functional.embedding(input_ids, model.embedding)
        for layer in model.layers:
            x, _ = layer(x, cosine, sine, cache)

        return model.logits(x), *cache.present


def name_cache(config: ModelConfig, prefix: str) -> list[str]:
    """Return the names of keys and values of all layers."""
    return [
        f"{prefix}.{layer}.{part}"
        for layer in range(config.num_layers)
        for part in ("key", "value")
    ]


def write_onnx(model: Transformer, path: Path) -> None:
    """Write the graph with weights inside; batch, past and new length stay free.

    Raises:
        ModelVersionError: a package is missing, or the model has experts, whose routing ONNX does
            not express.
    """
    _import("onnx")
    _import("onnxscript")
    config = model.config
    if config.is_mixture_of_experts:
        raise ModelVersionError(
            "a mixture of experts cannot be exported to onnx; export it to hf or gguf"
        )

    batch, past, new = 2, 3, 4
    shape = (batch, config.num_kv_heads, past, config.head_dim)
    names = name_cache(config, "past_key_values")
    example = (
        torch.zeros(batch, new, dtype=torch.int64),
        torch.ones(batch, past + new, dtype=torch.int64),
        torch.arange(past, past + new).expand(batch, new).contiguous(),
        *(torch.zeros(shape) for _ in names),
    )
    axes: dict[int, Any] = {0: "batch_size", 1: "sequence_length"}
    shapes = (axes, {0: "batch_size", 1: "total_sequence_length"}, axes, tuple(
        {0: "batch_size", 2: "past_sequence_length"} for _ in names
    ))  # fmt: skip

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            CachedLogits(model).eval(),
            example,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=["input_ids", "attention_mask", "position_ids", *names],
            output_names=["logits", *name_cache(config, "present")],
            verbose=False,
        )

    assert program is not None
    program.save(str(path), external_data=False)


class OnnxModel:
    """The graph in ONNX Runtime, with its cache.

    Raises:
        ModelVersionError: the package onnxruntime is missing.
    """

    def __init__(self, path: Path, config: ModelConfig) -> None:
        runtime = _import("onnxruntime")
        self.session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.config = config
        self.names = name_cache(config, "past_key_values")
        self.past: Sequence[np.ndarray] = ()
        self.mask = np.zeros((0, 0), dtype=np.int64)

    def read(self, tokens: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Return the logits (B, T, V) of ids (B, T) after those read before; the cache grows.

        `mask` (B, T) is 0 at padding.
        """
        mask = np.ones_like(tokens) if mask is None else mask
        if not self.past:
            shape = (len(tokens), self.config.num_kv_heads, 0, self.config.head_dim)
            self.past = [np.zeros(shape, dtype=np.float32)] * len(self.names)
            self.mask = mask[:, :0]

        self.mask = np.concatenate((self.mask, mask), axis=1)
        positions = np.maximum(self.mask.cumsum(1) - 1, 0)[:, -tokens.shape[1] :]
        inputs = {
            "input_ids": tokens,
            "attention_mask": self.mask,
            "position_ids": positions,
            **dict(zip(self.names, self.past, strict=True)),
        }
        logits, *self.past = self.session.run(None, inputs)
        return logits


def describe_genai(config: JsonObject, generation: JsonObject) -> JsonObject:
    """Return genai_config.json, with which onnxruntime-genai runs the graph.

    `config` and `generation` are those of the Hugging Face folder. Source: onnxruntime-genai,
    src/python/py/models/builder.py.
    """
    context = config["max_position_embeddings"]
    end = generation["eos_token_id"]
    layers = {
        "past_key_names": "past_key_values.%d.key",
        "past_value_names": "past_key_values.%d.value",
    }
    present = {"present_key_names": "present.%d.key", "present_value_names": "present.%d.value"}
    return {
        "model": {
            "bos_token_id": config.get("bos_token_id") or end,
            "context_length": context,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": FILE,
                "head_size": config["head_dim"],
                "hidden_size": config["hidden_size"],
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "position_ids": "position_ids",
                    **layers,
                },
                "outputs": {"logits": "logits", **present},
                "num_attention_heads": config["num_attention_heads"],
                "num_hidden_layers": config["num_hidden_layers"],
                "num_key_value_heads": config["num_key_value_heads"],
            },
            "eos_token_id": end,
            "pad_token_id": config.get("pad_token_id") or end,
            "type": config["model_type"],
            "vocab_size": config["vocab_size"],
        },
        "search": {
            "do_sample": generation.get("do_sample", False),
            "max_length": context,
            "temperature": generation.get("temperature", 1.0),
            "top_k": generation.get("top_k", 50),
            "top_p": generation.get("top_p", 1.0),
            "repetition_penalty": generation.get("repetition_penalty", 1.0),
            "past_present_share_buffer": False,
        },
    }


def _import(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise ModelVersionError(
            f"ONNX wants the package {name}; run `pip install 'lightlm[export]'`"
        ) from None
