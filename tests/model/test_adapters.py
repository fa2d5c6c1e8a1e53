"""Adapters: they begin as nothing, are trained alone, merge into what they added, and PEFT's names."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lightlm.model.adapters import (
    add_adapters,
    copy_merged,
    drop_adapters,
    freeze_lower,
    has_adapters,
    is_narrow,
    narrow_frozen,
    save_adapters,
)
from lightlm.model.hugging_face import list_weights
from lightlm.model.transformer import Transformer

Build = Callable[..., Transformer]
TOKENS = torch.arange(40).view(2, 20)


def disturb(model: Transformer) -> None:
    """Give adapters values that matter."""
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".adapters." in name:
                weight.copy_(torch.randn(weight.shape, generator=draw) * 0.2)


@pytest.mark.parametrize("family", ["qwen3", "llama", "qwen2"])
def test_new_adapters_change_nothing_and_merged_ones_as_much_as_they_add(
    build: Build, family: str
) -> None:
    model = build(family=family, num_kv_heads=2)
    with torch.no_grad():
        before = model(TOKENS)
        add_adapters(model, 3, seed=0)
        assert torch.equal(model(TOKENS), before)
        disturb(model)
        after = model(TOKENS)
        assert (after - before).abs().max() > 0.1
        torch.testing.assert_close(copy_merged(model)(TOKENS), after, atol=1e-4, rtol=1e-4)
        drop_adapters(model)
        assert torch.equal(model(TOKENS), before)
    assert not has_adapters(model)


def test_adapters_alone_are_trained(build: Build) -> None:
    model = build(tie_embeddings=True)
    add_adapters(model, 2, seed=0)
    disturb(model)
    loss, _ = model.compute_loss(TOKENS, TOKENS)
    loss.backward()
    trained = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert trained == {name for name, _ in model.named_parameters() if ".adapters." in name}


def test_below_the_last_layers_nothing_has_a_gradient(build: Build) -> None:
    model = build()
    freeze_lower(model, 1)
    loss, _ = model.compute_loss(TOKENS, TOKENS)
    loss.backward()
    trained = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert all(name == "norm" or name.startswith("layers.1.") for name in trained)
    assert "norm" in trained


def test_a_frozen_heads_loss_and_gradients_are_those_of_a_trained_one(build: Build) -> None:
    model = build()
    loss, _ = model.compute_loss(TOKENS, TOKENS)
    loss.backward()
    assert model.head is not None
    wanted = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    model.head.requires_grad_(False)
    again, _ = model.compute_loss(TOKENS, TOKENS)
    again.backward()
    assert torch.equal(again, loss)
    for name, weight in model.named_parameters():
        if name != "head":
            assert torch.equal(weight.grad, wanted[name]), name  # pyright: ignore


def test_peft_would_add_to_each_matrix_what_ours_do(build: Build, tmp_path: Path) -> None:
    model = build(num_kv_heads=2)
    add_adapters(model, 3, seed=0)
    disturb(model)
    save_adapters(model, tmp_path / "adapter", "owner/name")
    config: dict[str, Any] = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"]) == ("owner/name", 3)
    saved = load_file(tmp_path / "adapter/adapter_model.safetensors")
    merged = dict(list_weights(copy_merged(model)))
    scale = config["lora_alpha"] / config["r"]
    drop_adapters(model)

    changed = 0
    for name, weight in list_weights(model):
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" not in saved:
            continue
        low = saved[f"{stem}.lora_A.weight"]
        high = saved[f"{stem}.lora_B.weight"]
        torch.testing.assert_close(merged[name], weight + scale * high @ low, atol=1e-5, rtol=1e-4)
        changed += 1
    assert changed == 7 * model.config.num_layers == len(saved) // 2
    assert {name.split(".")[-3] for name in saved} == set(config["target_modules"])


def test_frozen_weights_in_fewer_bytes_give_the_same_logits_and_only_where_they_are_exact(
    build: Build,
) -> None:
    model = build()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.bfloat16().float())
        dict(model.named_parameters())["layers.0.attention.output"][0, 0] = 0.1  # not exact
    model.compute_dtype = torch.bfloat16
    add_adapters(model, 4, 0)
    before = model(TOKENS)
    assert not is_narrow(model)
    narrow_frozen(model)
    assert torch.equal(model(TOKENS), before)
    kept = {name: weight.dtype for name, weight in model.named_parameters()}
    assert kept["embedding"] == torch.bfloat16
    assert kept["layers.0.attention.output"] == kept["norm"] == torch.float32
    assert not is_narrow(model)

    drop_adapters(model)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
