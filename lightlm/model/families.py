"""The families of models that LightLM computes: config.json of each, read and written, and the
shapes of its weights. No torch.

Values that would load and then be computed otherwise here are refused.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lightlm.errors import ModelVersionError
from lightlm.json_object import JsonObject
from lightlm.model.config import ModelConfig
from lightlm.params import describe_validation

DENSE = "Qwen3ForCausalLM"
EXPERTS = "Qwen3MoeForCausalLM"
LLAMA = "LlamaForCausalLM"
QWEN2 = "Qwen2ForCausalLM"

FAMILIES = {DENSE: "qwen3", EXPERTS: "qwen3", LLAMA: "llama", QWEN2: "qwen2"}
"""transformers' architectures and their families."""

OWN_CONTEXT = "lightlm_context_length"
"""Key of config.json: tokens that training and scores read at a time, if the model reads more."""

MAX_CONFIG_BYTES = 1 << 20
"""Bytes of a config.json; those of large models have 2,000."""

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
    "mlp_bias": (False, None),
    "use_sliding_window": (False, None),
    "hidden_act": ("silu",),
    "decoder_sparse_step": (1, None),
    "mlp_only_layers": ([], None),
    "pretraining_tp": (1, None),
}
"""Variants that would load and then compute something else here."""

_LLAMA3_KEYS = {
    "factor": "factor",
    "low_frequency_factor": "low_freq_factor",
    "high_frequency_factor": "high_freq_factor",
    "original_context_length": "original_max_position_embeddings",
}


def name_architecture(config: ModelConfig) -> str:
    """Return transformers' name of the architecture."""
    if config.is_mixture_of_experts:
        return EXPERTS
    return {"qwen3": DENSE, "llama": LLAMA, "qwen2": QWEN2}[config.family]


def describe_config(config: ModelConfig, end_of_text: int) -> JsonObject:
    """Return config.json's values.

    `rope_theta` stands twice: transformers 5 reads the inner one, older tools the outer one.
    """
    model_type = "qwen3_moe" if config.is_mixture_of_experts else config.family
    values: JsonObject = {
        "architectures": [name_architecture(config)],
        "model_type": model_type,
        "dtype": "float32",
        "vocab_size": config.vocab_size,
        "hidden_size": config.model_dim,
        "intermediate_size": config.ffn_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.longest_context or config.context_length,
        "initializer_range": 0.02,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "rope_parameters": _describe_rope(config),
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "use_cache": True,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "pad_token_id": end_of_text,
    }

    if config.family == "llama":
        values["mlp_bias"] = False
    if config.family != "qwen3":
        del values["use_sliding_window"]
    if config.family == "qwen2":
        del values["attention_bias"]
    if config.longest_context is not None:
        values[OWN_CONTEXT] = config.context_length
    if config.rope_scaling is not None:
        values["rope_scaling"] = {
            name: value for name, value in _describe_rope(config).items() if name != "rope_theta"
        }

    if config.is_mixture_of_experts:
        values |= {theirs: getattr(config, ours) for ours, theirs in _EXPERT_KEYS.items()}
        values |= {"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []}

    return values


def _describe_rope(config: ModelConfig) -> JsonObject:
    scaling = config.rope_scaling
    if scaling is None:
        return {"rope_type": "default", "rope_theta": config.rope_theta}
    values: JsonObject = {"rope_type": scaling.kind, "rope_theta": config.rope_theta}
    if scaling.kind == "linear":
        return values | {"factor": scaling.factor}
    return values | {theirs: getattr(scaling, ours) for ours, theirs in _LLAMA3_KEYS.items()}


def read_config_file(path: Path) -> JsonObject:
    """Return the values of a config.json.

    Raises:
        ModelVersionError: there is none that can be read, or it is no JSON object.
    """
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError("too long")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise ModelVersionError(
            f"{path.parent} holds no config.json that can be read; give a folder that LightLM or "
            "transformers wrote"
        ) from None

    if not isinstance(values, dict):
        raise ModelVersionError(f"{path} holds no JSON object, got {type(values).__name__}")
    return values


def read_config(folder: Path) -> ModelConfig:
    """Return the shape that a folder's config.json describes.

    Raises:
        ModelVersionError: there is none, or it describes a model that is computed differently.
    """
    path = folder / "config.json"
    values = read_config_file(path)
    architectures = values.get("architectures")
    known = list(FAMILIES)

    if (
        not isinstance(architectures, list)
        or len(architectures) != 1
        or architectures[0] not in known
    ):
        raise ModelVersionError(
            f"{path}: wanted architectures of one of {', '.join(known)}, got {architectures!r}; "
            "give a model of the families Qwen3, Llama or Qwen2"
        )

    _refuse_variants(values, path)
    shape = _read_shape(values, FAMILIES[architectures[0]])
    if architectures[0] == EXPERTS:
        shape |= {ours: values.get(theirs) for ours, theirs in _EXPERT_KEYS.items()}

    try:
        shape["rope_scaling"] = _read_scaling(values, path)
        return ModelConfig.model_validate(shape)
    except ValidationError as error:
        raise ModelVersionError(f"{path}: {describe_validation(error)}") from None


def _read_shape(values: JsonObject, family: str) -> JsonObject:
    """Return the fields of a ModelConfig; what the other families may leave out as transformers
    fills it in.
    """
    shape: JsonObject = {ours: values.get(theirs) for ours, theirs in _SHAPE_KEYS.items()}
    shape["family"] = family
    rope = values.get("rope_parameters") or {}
    shape["rope_theta"] = rope.get("rope_theta", values.get("rope_theta"))

    if family != "qwen3":
        heads = values.get("num_attention_heads")
        dim = values.get("hidden_size")
        if isinstance(heads, int) and isinstance(dim, int) and heads > 0:
            shape["head_dim"] = shape["head_dim"] or dim // heads
        shape["num_kv_heads"] = shape["num_kv_heads"] or heads
        shape["tie_embeddings"] = bool(shape["tie_embeddings"])
        shape["norm_epsilon"] = shape["norm_epsilon"] or 1e-6
        shape["rope_theta"] = shape["rope_theta"] or 10_000.0

    if OWN_CONTEXT in values:
        shape["longest_context"] = shape["context_length"]
        shape["context_length"] = values[OWN_CONTEXT]
    return shape


def _find_rope(values: JsonObject) -> Any:
    return values.get("rope_scaling") or values.get("rope_parameters") or {}


def _read_scaling(values: JsonObject, path: Path) -> JsonObject | None:
    rope = _find_rope(values)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind == "linear":
        return {"kind": kind, "factor": rope.get("factor")}
    if kind == "llama3":
        found = {ours: rope.get(theirs) for ours, theirs in _LLAMA3_KEYS.items()}
        return {"kind": kind} | found
    name = "rope_scaling" if values.get("rope_scaling") else "rope_parameters"
    raise ModelVersionError(
        f"{path}: {name} is {rope!r}; LightLM computes only the default rotary type, linear and "
        "llama3"
    )


def _refuse_variants(values: JsonObject, path: Path) -> None:
    for name, allowed in _ONLY_VALUES.items():
        if values.get(name, allowed[0]) not in allowed:
            raise ModelVersionError(
                f"{path}: {name} is {values[name]!r}; LightLM computes only {allowed[0]!r}"
            )

    for name in ("rope_parameters", "rope_scaling"):
        if not isinstance(values.get(name) or {}, dict):
            raise ModelVersionError(
                f"{path}: {name} is {values[name]!r}; LightLM computes only the default rotary "
                "type, linear and llama3"
            )

    kinds = values.get("layer_types") or []
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        raise ModelVersionError(
            f"{path}: layer_types is {kinds!r}; LightLM computes only full_attention"
        )

    if values["architectures"] == [EXPERTS] and not values.get("norm_topk_prob"):
        raise ModelVersionError(
            f"{path}: norm_topk_prob is not true; LightLM computes only normalized expert weights"
        )


def list_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight by transformers' name: arithmetic, before memory is asked
    for.
    """
    dim = config.model_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, dim)}
    for layer in range(config.num_layers):
        shapes.update(_list_layer(config, f"model.layers.{layer}."))
    shapes["model.norm.weight"] = (dim,)
    if not config.tie_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, dim)
    return shapes


def _list_layer(config: ModelConfig, prefix: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    dim = config.model_dim
    attention = f"{prefix}self_attn."
    rows = {"q": config.num_heads * config.head_dim}
    rows |= dict.fromkeys("kv", config.num_kv_heads * config.head_dim)

    for kind, height in rows.items():
        yield f"{attention}{kind}_proj.weight", (height, dim)
        if config.has_bias:
            yield f"{attention}{kind}_proj.bias", (height,)
    yield f"{attention}o_proj.weight", (dim, rows["q"])
    if config.has_head_norms:
        yield f"{attention}q_norm.weight", (config.head_dim,)
        yield f"{attention}k_norm.weight", (config.head_dim,)

    yield f"{prefix}input_layernorm.weight", (dim,)
    yield f"{prefix}post_attention_layernorm.weight", (dim,)
    if not config.is_mixture_of_experts:
        yield from _list_feedforward(f"{prefix}mlp.", dim, config.ffn_dim)
        return

    yield f"{prefix}mlp.gate.weight", (config.num_experts, dim)
    for expert in range(config.num_experts):
        inner = f"{prefix}mlp.experts.{expert}."
        yield from _list_feedforward(inner, dim, config.expert_ffn_dim)


def _list_feedforward(prefix: str, dim: int, ffn_dim: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{prefix}gate_proj.weight", (ffn_dim, dim)
    yield f"{prefix}up_proj.weight", (ffn_dim, dim)
    yield f"{prefix}down_proj.weight", (dim, ffn_dim)
