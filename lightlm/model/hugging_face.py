"""The model as a standard Hugging Face folder, which transformers opens without our code, and back.

Owns the names: Qwen3ForCausalLM, or Qwen3MoeForCausalLM with experts. Weights are safetensors, nothing can run code.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightlm.errors import ModelVersionError
from lightlm.model.config import ModelConfig
from lightlm.model.transformer import Transformer

WEIGHTS = "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def export_model(
    model: Transformer, tokenizer_folder: Path, folder: Path, *, generation: Mapping[str, Any] | None = None
) -> None:
    """Write config, weights, tokenizer and generation defaults into `folder`, which a commit then makes durable."""
    end = _find_end_of_text(tokenizer_folder)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in list_weights(model)}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    # safetensors creates its file for the owner alone; a model is to be read by servers of other users too.
    (folder / WEIGHTS).chmod(0o644)
    (folder / "config.json").write_text(json.dumps(describe_config(model.config, end), indent=2), encoding="utf-8")
    defaults = {"do_sample": True, "eos_token_id": end, "pad_token_id": end, **_generation(generation or {})}
    (folder / "generation_config.json").write_text(json.dumps(defaults, indent=2), encoding="utf-8")
    for name in TOKENIZER_FILES:
        if (tokenizer_folder / name).exists():
            shutil.copyfile(tokenizer_folder / name, folder / name)


def load_model(folder: Path, *, device: str = "cpu", kernel: str = "sdpa") -> Transformer:
    """Return the model of a folder that `export_model` wrote, in fp32; shapes are checked before memory is taken.

    Raises:
        ModelVersionError: it is no such folder, or its weights do not fit its config.
    """
    config = read_config(folder)
    with torch.device("meta"):
        model = Transformer(config, kernel=kernel)
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            _check_shapes(folder, file, model)
            model = model.to_empty(device=device)
            with torch.no_grad():
                for name, tensor in list_weights(model):
                    tensor.copy_(file.get_tensor(name))
    except (OSError, SafetensorError) as error:
        raise ModelVersionError(f"{folder / WEIGHTS} cannot be read ({error}); download the version again") from None
    return model.eval()


def list_weights(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """Yield (Hugging Face name, view of our weight) of every weight; writing into a view writes the weight."""
    config = model.config
    yield "model.embed_tokens.weight", model.embedding.data
    yield "model.norm.weight", model.norm.data
    if model.head is not None:
        yield "lm_head.weight", model.head.data
    heights = [config.num_heads * config.head_dim, *[config.num_kv_heads * config.head_dim] * 2]
    for index, layer in enumerate(model.layers):
        prefix = f"model.layers.{index}"
        weights = dict(layer.named_parameters())
        yield f"{prefix}.input_layernorm.weight", weights["attention_norm"].data
        yield f"{prefix}.post_attention_layernorm.weight", weights["feedforward_norm"].data
        stacked = weights["attention.query_key_value"].data.split(heights)
        for name, matrix in zip(("q_proj", "k_proj", "v_proj"), stacked, strict=True):
            yield f"{prefix}.self_attn.{name}.weight", matrix
        yield f"{prefix}.self_attn.o_proj.weight", weights["attention.output"].data
        yield f"{prefix}.self_attn.q_norm.weight", weights["attention.query_norm"].data
        yield f"{prefix}.self_attn.k_norm.weight", weights["attention.key_norm"].data
        yield from _list_feedforward(f"{prefix}.mlp", weights, config)


def describe_config(config: ModelConfig, end_of_text: int) -> dict[str, Any]:
    """Return config.json's content."""
    values: dict[str, Any] = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": config.vocab_size,
        "hidden_size": config.model_dim,
        "intermediate_size": config.ffn_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "tie_word_embeddings": config.tie_embeddings,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "use_sliding_window": False,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "dtype": "float32",
    }
    if config.is_mixture_of_experts:
        values |= {
            "architectures": ["Qwen3MoeForCausalLM"],
            "model_type": "qwen3_moe",
            "num_experts": config.num_experts,
            "num_experts_per_tok": config.num_active_experts,
            "moe_intermediate_size": config.expert_ffn_dim,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "router_aux_loss_coef": config.balance_loss_weight,
        }
    return values


def read_config(folder: Path) -> ModelConfig:
    """Return the shape that a folder's config.json describes.

    Raises:
        ModelVersionError: there is none, or it is of another architecture.
    """
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        is_moe = {"qwen3": False, "qwen3_moe": True}[values["model_type"]]
        rope = values.get("rope_parameters") or {}
        return ModelConfig(
            vocab_size=values["vocab_size"],
            num_layers=values["num_hidden_layers"],
            model_dim=values["hidden_size"],
            num_heads=values["num_attention_heads"],
            num_kv_heads=values["num_key_value_heads"],
            head_dim=values["head_dim"],
            ffn_dim=values["intermediate_size"],
            context_length=values["max_position_embeddings"],
            tie_embeddings=values.get("tie_word_embeddings", False),
            rope_theta=rope.get("rope_theta", values.get("rope_theta", 10_000.0)),
            norm_epsilon=values["rms_norm_eps"],
            num_experts=values["num_experts"] if is_moe else 0,
            num_active_experts=values["num_experts_per_tok"] if is_moe else 0,
            expert_ffn_dim=values["moe_intermediate_size"] if is_moe else 0,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelVersionError(
            f"{folder} holds no model that LightLM can open ({type(error).__name__}: {error}); "
            "wanted a config.json of Qwen3 or Qwen3-MoE, as LightLM registers it"
        ) from None


def _list_feedforward(prefix: str, weights: Mapping[str, Tensor], config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    gate_up, down = weights["feedforward.gate_up"].data, weights["feedforward.down"].data
    if not config.is_mixture_of_experts:
        gate, up = gate_up.chunk(2)
        yield f"{prefix}.gate_proj.weight", gate
        yield f"{prefix}.up_proj.weight", up
        yield f"{prefix}.down_proj.weight", down
        return
    yield f"{prefix}.gate.weight", weights["feedforward.router"].data
    for expert in range(config.num_experts):
        gate, up = gate_up[expert].chunk(2)
        yield f"{prefix}.experts.{expert}.gate_proj.weight", gate
        yield f"{prefix}.experts.{expert}.up_proj.weight", up
        yield f"{prefix}.experts.{expert}.down_proj.weight", down[expert]


def _check_shapes(folder: Path, file: Any, model: Transformer) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in list_weights(model)}
    found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    if wanted != found:
        wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise ModelVersionError(
            f"{folder / WEIGHTS} does not fit config.json: {wrong[0]} is {found.get(wrong[0])}, wanted "
            f"{wanted.get(wrong[0])} ({len(wrong)} such); download the version again"
        )


def _find_end_of_text(tokenizer_folder: Path) -> int:
    config = json.loads((tokenizer_folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer = json.loads((tokenizer_folder / "tokenizer.json").read_text(encoding="utf-8"))
    end = config["eos_token"]
    added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or []}
    return added[end] if end in added else tokenizer["model"]["vocab"][end]


def _generation(defaults: Mapping[str, Any]) -> dict[str, Any]:
    names = ("temperature", "top_k", "top_p", "repetition_penalty")
    known = {name: defaults[name] for name in names if name in defaults}
    if known.get("temperature") == 0:
        return {"do_sample": False}
    return known
