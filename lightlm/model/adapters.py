"""Adapters of low rank (LoRA) at the matrices of layers: trained in their place, then merged.

Written in PEFT's format. Source: Hu et al. 2021, arXiv 2106.09685.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lightlm.model.feedforward import FeedForward
from lightlm.model.low_rank import LowRank
from lightlm.model.transformer import Transformer

ALPHA_PER_RANK = 2.0
"""Factor on an adapter's product: PEFT's alpha divided by the rank."""

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"


def add_adapters(model: Transformer, rank: int, seed: int) -> None:
    """Freeze all weights and give layers' matrices adapters, whose products begin at zero."""
    for weight in model.parameters():
        weight.requires_grad_(False)

    generator = torch.Generator().manual_seed(seed)
    for module, names in list_adapted(model):
        module.adapters = nn.ModuleDict(
            {
                name: LowRank(getattr(module, name), rank, ALPHA_PER_RANK, generator)
                for name in names
            }
        )


def list_adapted(model: Transformer) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Yield each module that takes adapters, with the names of its matrices."""
    for layer in model.layers:
        yield layer.attention, ("query_key_value", "output")
        if isinstance(layer.feedforward, FeedForward):
            yield layer.feedforward, ("gate_up", "down")


@torch.no_grad()
def copy_merged(model: Transformer) -> Transformer:
    """Return a copy for reading, each adapter's product added to its matrix."""
    with torch.device("meta"):
        copy = Transformer(model.config)
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    for index, layer in enumerate(model.layers):
        for kind, module in (("attention", layer.attention), ("feedforward", layer.feedforward)):
            adapters: Any = getattr(module, "adapters", None) or {}
            for name in adapters:
                key = f"layers.{index}.{kind}.{name}"
                weights[key] = weights[key] + adapters[name].product()

    wanted = dict(copy.named_parameters())
    copy.load_state_dict({name: weights[name] for name in wanted}, assign=True)
    copy.compute_dtype = model.compute_dtype
    return copy.eval()


def drop_adapters(model: Transformer) -> None:
    """Take the adapters away with what they learned; all weights are trained again."""
    for module, _ in list_adapted(model):
        module.adapters = None
    for weight in model.parameters():
        weight.data = weight.data.float()
        weight.requires_grad_(True)


@torch.no_grad()
def narrow_frozen(model: Transformer) -> None:
    """Keep frozen matrices in the dtype that is computed in where that has their values exactly, as
    it has those of a base in bfloat16: 2 bytes instead of 4, and no conversion at each use.

    What is trained stays fp32: an update is often smaller than what bfloat16 tells apart.
    """
    if model.compute_dtype == torch.float32:
        return
    for weight in model.parameters():
        if weight.requires_grad or weight.dim() < 2:
            continue
        narrow = weight.data.to(model.compute_dtype)
        if torch.equal(narrow.float(), weight.data):
            weight.data = narrow


def is_narrow(model: Transformer) -> bool:
    """Return whether all frozen matrices are kept in fewer bytes than fp32."""
    frozen = [one for one in model.parameters() if not one.requires_grad and one.dim() >= 2]
    return bool(frozen) and all(one.dtype != torch.float32 for one in frozen)


def has_adapters(model: Transformer) -> bool:
    """Return whether the model has adapters now."""
    return any(module.adapters is not None for module, _ in list_adapted(model))


def save_adapters(model: Transformer, folder: Path, base: str) -> None:
    """Write the adapters into a folder as PEFT has them; `base` names the model that they fit."""
    folder.mkdir()
    named = {
        f"base_model.model.model.{name}.weight": weight.detach().cpu().float().contiguous().clone()
        for name, weight in _name_for_peft(model)
    }
    save_file(named, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / WEIGHTS_FILE).chmod(0o644)

    rank = next(iter(named.values())).shape[0]
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    values = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": ALPHA_PER_RANK * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": [name for name in targets if any(f".{name}." in key for key in named)],
    }
    (folder / CONFIG_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _name_for_peft(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """Yield PEFT's names: a stacked matrix has one adapter here and one for each part there, which
    share the first factor.
    """
    config = model.config
    rows = (config.num_heads * config.head_dim, *[config.num_kv_heads * config.head_dim] * 2)
    for index, layer in enumerate(model.layers):
        attention: Any = layer.attention
        feedforward: Any = layer.feedforward
        parts = [
            (attention, "query_key_value", ("q_proj", "k_proj", "v_proj"), rows),
            (attention, "output", ("o_proj",), (config.model_dim,)),
        ]
        if isinstance(feedforward, FeedForward):
            wide = (config.ffn_dim, config.ffn_dim)
            parts.append((feedforward, "gate_up", ("gate_proj", "up_proj"), wide))
            parts.append((feedforward, "down", ("down_proj",), (config.model_dim,)))

        for module, name, theirs, heights in parts:
            adapter: LowRank = module.adapters[name]
            place = "self_attn" if module is attention else "mlp"
            for part, high in zip(theirs, adapter.high.split(heights), strict=True):
                yield f"layers.{index}.{place}.{part}.lora_A", adapter.low
                yield f"layers.{index}.{place}.{part}.lora_B", high


def freeze_lower(model: Transformer, num_tuned: int) -> None:
    """Train the last `num_tuned` layers and the last norm alone: nothing below them has a backward
    pass.
    """
    for weight in model.parameters():
        weight.requires_grad_(False)
    for layer in list(model.layers)[len(model.layers) - num_tuned :]:
        for weight in layer.parameters():
            weight.requires_grad_(True)
    model.norm.requires_grad_(True)
