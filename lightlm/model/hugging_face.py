"""The model as a standard Hugging Face folder, written and read: Qwen3ForCausalLM or
Qwen3MoeForCausalLM.

Owns the names and layouts of that format; transformers, vLLM and llama.cpp open the folder without
our code. Weights are safetensors only, which cannot run code; digests are the store's business,
before anything is parsed here.
"""

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightlm.errors import ModelVersionError
from lightlm.json_object import JsonObject
from lightlm.model.config import ModelConfig
from lightlm.model.moe import MixtureOfExperts
from lightlm.model.transformer import Transformer
from lightlm.params import describe_validation

WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
END_OF_TEXT = "<|endoftext|>"
"""The end-of-text token of a tokenizer whose tokenizer_config.json names none."""

DENSE = "Qwen3ForCausalLM"
EXPERTS = "Qwen3MoeForCausalLM"


def export_model(
    model: Transformer,
    tokenizer_folder: Path,
    folder: Path,
    *,
    generation: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write config, fp32 weights, tokenizer and sampling defaults into an existing folder.

    `generation` holds values of params' generation section; they become transformers'
    generation_config.json.
    """
    end_of_text = _find_end_of_text(tokenizer_folder)
    _write_json(folder / "config.json", describe_config(model.config, end_of_text))
    _write_json(folder / "generation_config.json", describe_generation(generation, end_of_text))
    weights = {
        name: weight.detach().to("cpu", torch.float32).contiguous()
        for name, weight in list_weights(model)
    }

    # transformers refuses a file without it
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    # safetensors creates its file for the owner alone; a model is to be read by servers of other
    # users too.
    (folder / WEIGHTS_FILE).chmod(0o644)
    for name in TOKENIZER_FILES:
        if (tokenizer_folder / name).is_file():
            shutil.copyfile(tokenizer_folder / name, folder / name)


def load_model(folder: Path, *, device: str = "cpu", kernel: str = "sdpa") -> Transformer:
    """Return the model of a Hugging Face folder in our layout, in evaluation mode, its weights fp32
    on `device`.

    Raises:
        ModelVersionError: the folder holds no such model, or its weights are not those of its
            config.
    """
    config = read_config(folder)
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            _check_shapes(config, shapes, folder)
            with torch.device(device):
                model = Transformer(config, kernel=kernel)
            with torch.no_grad():
                for name, weight in list_weights(model):
                    weight.copy_(file.get_tensor(name))
    except (OSError, SafetensorError) as error:
        raise ModelVersionError(
            f"{folder / WEIGHTS_FILE} cannot be read ({error}); download the version again"
        ) from None

    return model.eval()


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
        yield f"{prefix}self_attn.o_proj.weight", attention.output
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


def describe_config(config: ModelConfig, end_of_text: int) -> JsonObject:
    """Return config.json's values.

    `rope_theta` stands twice: transformers 5 reads the inner one, older tools the outer one.
    """
    values: JsonObject = {
        "architectures": [EXPERTS if config.is_mixture_of_experts else DENSE],
        "model_type": "qwen3_moe" if config.is_mixture_of_experts else "qwen3",
        "dtype": "float32",
        "vocab_size": config.vocab_size,
        "hidden_size": config.model_dim,
        "intermediate_size": config.ffn_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.context_length,
        "initializer_range": 0.02,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "use_cache": True,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "pad_token_id": end_of_text,
    }

    if config.is_mixture_of_experts:
        values |= {
            "num_experts": config.num_experts,
            "num_experts_per_tok": config.num_active_experts,
            "moe_intermediate_size": config.expert_ffn_dim,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "router_aux_loss_coef": config.balance_loss_weight,
        }

    return values


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


def read_config(folder: Path) -> ModelConfig:
    """Return the shape that a folder's config.json describes.

    Raises:
        ModelVersionError: there is none, or it describes a model that is computed differently.
    """
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ModelVersionError(
            f"{folder} holds no config.json that can be read; give a folder that LightLM exported"
        ) from None

    if not isinstance(values, dict) or values.get("architectures") not in ([DENSE], [EXPERTS]):
        got = values.get("architectures") if isinstance(values, dict) else values
        raise ModelVersionError(
            f"{path}: wanted architectures [{DENSE!r}] or [{EXPERTS!r}], got {got!r}"
        )

    _refuse_variants(values, path)
    experts = values["architectures"] == [EXPERTS]
    rope = values.get("rope_parameters") or {}
    shape = {ours: values.get(theirs) for ours, theirs in _SHAPE_KEYS.items()}
    shape["rope_theta"] = rope.get("rope_theta", values.get("rope_theta"))
    if experts:
        shape |= {ours: values.get(theirs) for ours, theirs in _EXPERT_KEYS.items()}

    try:
        return ModelConfig.model_validate(shape)
    except ValidationError as error:
        raise ModelVersionError(f"{path}: {describe_validation(error)}") from None


_SHAPE_KEYS = {
    "vocab_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "model_dim": "hidden_size",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "ffn_dim": "intermediate_size",
    "context_length": "max_position_embeddings",
    "tie_embeddings": "tie_word_embeddings",
    "norm_epsilon": "rms_norm_eps",
}

_EXPERT_KEYS = {
    "num_experts": "num_experts",
    "num_active_experts": "num_experts_per_tok",
    "expert_ffn_dim": "moe_intermediate_size",
    "balance_loss_weight": "router_aux_loss_coef",
}

_ONLY_VALUES = {
    "attention_bias": (False, None),
    "use_sliding_window": (False, None),
    "hidden_act": ("silu",),
    "rope_scaling": (None,),
    "decoder_sparse_step": (1, None),
    "mlp_only_layers": ([], None),
}
"""Variants of Qwen3 that would load and then compute something else here."""


def _refuse_variants(values: JsonObject, path: Path) -> None:
    for name, allowed in _ONLY_VALUES.items():
        if values.get(name, allowed[0]) not in allowed:
            raise ModelVersionError(
                f"{path}: {name} is {values[name]!r}; LightLM computes only {allowed[0]!r}"
            )

    rope = values.get("rope_parameters") or {}
    if not isinstance(rope, dict) or rope.get("rope_type", "default") != "default":
        raise ModelVersionError(
            f"{path}: rope_parameters is {rope!r}; LightLM computes only the default rotary type"
        )

    if values["architectures"] == [EXPERTS] and not values.get("norm_topk_prob"):
        raise ModelVersionError(
            f"{path}: norm_topk_prob is not true; LightLM computes only normalised expert weights"
        )


def _check_shapes(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]], folder: Path) -> None:
    """Compare by arithmetic before any model memory is asked for.

    Raises:
        ModelVersionError: naming the first weight that is missing, surplus or of another shape.
    """
    if sum(map(math.prod, shapes.values())) < config.num_layers * config.model_dim:
        raise ModelVersionError(
            f"{folder}: config.json describes a larger model than {WEIGHTS_FILE} holds"
        )

    with torch.device("meta"):
        wanted = {name: tuple(weight.shape) for name, weight in list_weights(Transformer(config))}
    for name in [*wanted, *shapes]:
        if wanted.get(name) != shapes.get(name):
            raise ModelVersionError(
                f"{folder / WEIGHTS_FILE}: {name} has shape {shapes.get(name)}, but config.json "
                "wants "
                f"{wanted.get(name)}; export the model again"
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
