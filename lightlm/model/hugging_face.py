"""The model as a standard Hugging Face folder, written and read: Qwen3, or the family that it
started from.

Owns the names and layouts of that format; transformers, vLLM and llama.cpp open the folder without
our code. Weights are safetensors only, which cannot run code; digests are the store's business,
before anything is parsed here.
"""

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightlm.errors import ModelVersionError
from lightlm.json_object import JsonObject
from lightlm.model.config import ModelConfig
from lightlm.model.families import describe_config, list_shapes, read_config, read_config_file
from lightlm.model.moe import MixtureOfExperts
from lightlm.model.transformer import Transformer

WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
BASE_FILES = ("chat_template.jinja", "base.json", "lightlm_tokenizer.json")
"""Files that a model keeps of the one that it was trained from, besides the tokenizer's."""

END_OF_TEXT = "<|endoftext|>"
"""The end-of-text token of a tokenizer whose tokenizer_config.json names none."""


def export_model(
    model: Transformer,
    tokenizer_folder: Path,
    folder: Path,
    *,
    generation: Mapping[str, Any] = MappingProxyType({}),
    base_folder: Path | None = None,
) -> None:
    """Write config, fp32 weights, tokenizer and sampling defaults into an existing folder.

    `generation` holds values of params' generation section; they become transformers'
    generation_config.json. A model that was trained from the one in `base_folder` keeps that one's
    tokenizer, chat template and special tokens.
    """
    end_of_text = _find_end_of_text(tokenizer_folder)
    config = describe_config(model.config, end_of_text)
    sampling = describe_generation(generation, end_of_text)
    if base_folder is not None:
        ids = read_special_ids(base_folder)
        config |= ids
        sampling |= ids | {"eos_token_id": list_ends(ids, end_of_text)}
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", sampling)
    weights = {
        name: weight.detach().to("cpu", torch.float32).contiguous()
        for name, weight in list_weights(model)
    }

    # transformers refuses a file without it
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    # safetensors creates its file for the owner alone; a model is to be read by servers of other
    # users too.
    (folder / WEIGHTS_FILE).chmod(0o644)
    kept = tokenizer_folder if base_folder is None else base_folder
    for name in (*TOKENIZER_FILES, *(() if base_folder is None else BASE_FILES)):
        if (kept / name).is_file():
            shutil.copyfile(kept / name, folder / name)


def read_special_ids(folder: Path) -> JsonObject:
    """Return the ids of special tokens in a folder's config.json, as far as it names them."""
    values = read_config_file(folder / "config.json")
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {name: values[name] for name in names if values.get(name) is not None}


def list_ends(ids: Mapping[str, Any], end_of_text: int) -> list[int]:
    """Return the ids after which text ends: the base's own, and the end of a document."""
    own = ids.get("eos_token_id", [])
    own = own if isinstance(own, list) else [own]
    return list(dict.fromkeys([*own, end_of_text]))


def load_model(folder: Path, *, device: str = "cpu", kernel: str = "sdpa") -> Transformer:
    """Return the model of a Hugging Face folder in our layout, in evaluation mode, its weights fp32
    on `device`.

    Raises:
        ModelVersionError: the folder holds no such model, or its weights are not those of its
            config.
    """
    config = read_config(folder)
    with _open_weights(folder, config) as file:
        with torch.device(device):
            model = Transformer(config, kernel=kernel)
        _copy_weights(file, model)
    return model.eval()


def fill_model(folder: Path, model: Transformer) -> None:
    """Copy the weights of a Hugging Face folder into a whole model of its shape, in place.

    Raises:
        ModelVersionError: the folder's weights are not those of the model.
    """
    with _open_weights(folder, model.config) as file:
        _copy_weights(file, model)


@contextmanager
def _open_weights(folder: Path, config: ModelConfig) -> Iterator[Any]:
    """Give the folder's open file of weights, their shapes compared with those of `config`."""
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            _check_shapes(config, shapes, folder)
            yield file
    except (OSError, SafetensorError) as error:
        raise ModelVersionError(
            f"{folder / WEIGHTS_FILE} cannot be read ({error}); download the version again"
        ) from None


@torch.no_grad()
def _copy_weights(file: Any, model: Transformer) -> None:
    for name, weight in list_weights(model):
        weight.copy_(file.get_tensor(name))


def list_weights(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """Yield every Hugging Face weight's name with the view of our parameters that holds it."""
    config = model.config
    query_rows = config.num_heads * config.head_dim
    key_rows = config.num_kv_heads * config.head_dim
    yield "model.embed_tokens.weight", model.embedding

    for index, layer in enumerate(model.layers):
        prefix = f"model.layers.{index}."
        attention: Any = layer.attention
        for kind, weight in zip(
            "qkv", attention.query_key_value.split((query_rows, key_rows, key_rows)), strict=True
        ):
            yield f"{prefix}self_attn.{kind}_proj.weight", weight
        if config.has_bias:
            for kind, bias in zip(
                "qkv", attention.input_bias.split((query_rows, key_rows, key_rows)), strict=True
            ):
                yield f"{prefix}self_attn.{kind}_proj.bias", bias
        yield f"{prefix}self_attn.o_proj.weight", attention.output
        if config.has_head_norms:
            yield f"{prefix}self_attn.q_norm.weight", attention.query_norm
            yield f"{prefix}self_attn.k_norm.weight", attention.key_norm
        yield f"{prefix}input_layernorm.weight", layer.attention_norm  # pyright: ignore[reportReturnType]
        yield f"{prefix}post_attention_layernorm.weight", layer.feedforward_norm  # pyright: ignore[reportReturnType]
        feedforward: Any = layer.feedforward
        if isinstance(feedforward, MixtureOfExperts):
            yield f"{prefix}mlp.gate.weight", feedforward.router
            for expert in range(config.num_experts):
                inner = f"{prefix}mlp.experts.{expert}."
                yield from _name_feedforward(
                    inner, feedforward.gate_up[expert], feedforward.down[expert]
                )
        else:
            yield from _name_feedforward(f"{prefix}mlp.", feedforward.gate_up, feedforward.down)

    yield "model.norm.weight", model.norm
    if model.head is not None:
        yield "lm_head.weight", model.head


def _name_feedforward(prefix: str, gate_up: Tensor, down: Tensor) -> Iterator[tuple[str, Tensor]]:
    gate, up = gate_up.chunk(2)
    yield f"{prefix}gate_proj.weight", gate
    yield f"{prefix}up_proj.weight", up
    yield f"{prefix}down_proj.weight", down


def describe_generation(generation: Mapping[str, Any], end_of_text: int) -> JsonObject:
    """Return generation_config.json's values; temperature 0 becomes do_sample false, as
    transformers says greedy.
    """
    values: JsonObject = {
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "pad_token_id": end_of_text,
        "do_sample": generation.get("temperature", 1.0) > 0,
    }
    sampled = ("temperature", "top_k", "top_p") if values["do_sample"] else ()
    for name in ("max_new_tokens", "repetition_penalty", *sampled):
        if name in generation:
            values[name] = generation[name]
    return values


def _check_shapes(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]], folder: Path) -> None:
    """Compare by arithmetic before any model memory is asked for.

    Raises:
        ModelVersionError: naming the first weight that is missing, surplus or of another shape.
    """
    if sum(map(math.prod, shapes.values())) < config.num_layers * config.model_dim:
        raise ModelVersionError(
            f"{folder}: config.json describes a larger model than {WEIGHTS_FILE} holds"
        )

    wanted = list_shapes(config)
    for name in [*wanted, *shapes]:
        if wanted.get(name) != shapes.get(name):
            raise ModelVersionError(
                f"{folder / WEIGHTS_FILE}: {name} has shape {shapes.get(name)}, but config.json "
                f"wants {wanted.get(name)}; export the model again"
            )


def _find_end_of_text(tokenizer_folder: Path) -> int:
    """Return the id of the tokenizer's end-of-text token, read from its files.

    Raises:
        ModelVersionError: there is no such tokenizer, or it has no such token.
    """
    try:
        values = json.loads((tokenizer_folder / "tokenizer.json").read_text(encoding="utf-8"))
        config_path = tokenizer_folder / "tokenizer_config.json"
        config = (
            json.loads(config_path.read_text(encoding="utf-8")) if config_path.is_file() else {}
        )
    except (OSError, ValueError) as error:
        raise ModelVersionError(
            f"{tokenizer_folder} holds no readable tokenizer.json: {error}"
        ) from None

    token = config.get("eos_token") or END_OF_TEXT
    token = token["content"] if isinstance(token, dict) else token
    ids = values["model"]["vocab"] | {
        added["content"]: added["id"] for added in values.get("added_tokens") or []
    }

    if token not in ids:
        raise ModelVersionError(
            f"{tokenizer_folder} has no token {token!r}; name its end of text as eos_token"
        )

    return ids[token]


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
