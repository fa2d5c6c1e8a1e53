"""Bases from GGUF files: what was exported comes back, quantized files are read, damage is reported."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import quantize
from transformers import AutoModelForCausalLM

from lightlm.bases.folder import adopt_folder
from lightlm.bases.gguf_file import adopt_gguf
from lightlm.data.tokenization.tokenizer import load_tokenizer
from lightlm.errors import ModelVersionError
from lightlm.model.gguf import read_chat_template, write_gguf
from lightlm.model.hugging_face import load_model

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"rope_parameters": LLAMA3, "hidden_size": 256}),
        ("qwen2", {}),
    ],
    ids=["llama", "tied", "llama 3", "qwen2"],
)
def test_an_exported_file_comes_back_as_the_same_base(
    home: Path,
    write_base: Callable[..., Path],
    tmp_path: Path,
    family: str,
    change: dict[str, object],
) -> None:
    base = adopt_folder(home, write_base(family, **change))
    path = tmp_path / "model.gguf"
    write_gguf(base.folder, path, "a name")
    back = adopt_gguf(home, path)
    same = {"norm_epsilon": base.model.norm_epsilon}  # a file keeps it in single precision
    assert back.model.model_copy(update=same) == base.model
    ours = dict(load_model(back.folder).named_parameters())
    for name, weight in load_model(base.folder).named_parameters():
        assert torch.equal(ours[name], weight), name
    text = "The old river, 1234 \x04 \u00e9"
    assert load_tokenizer(back.folder).encode(text) == load_tokenizer(base.folder).encode(text)
    assert read_chat_template(back.folder) == read_chat_template(base.folder)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_transformers_computes_the_same_from_the_file(
    home: Path, write_base: Callable[..., Path], tmp_path: Path, family: str
) -> None:
    base = adopt_folder(home, write_base(family))
    write_gguf(base.folder, tmp_path / "model.gguf", "a name")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf").eval()
    tokens = torch.randint(0, 258, (1, 60), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = (theirs(tokens).logits - load_model(base.folder)(tokens)).abs().max()
    assert difference < 1e-4


def test_quantized_weights_are_read_as_numbers(
    home: Path, write_base: Callable[..., Path], tmp_path: Path
) -> None:
    base = adopt_folder(home, write_base("llama"))
    whole = tmp_path / "model.gguf"
    write_gguf(base.folder, whole, "a name")
    small = tmp_path / "small.gguf"
    copy_quantized(whole, small)
    back = adopt_gguf(home, small)
    ours = dict(load_model(back.folder).named_parameters())
    for name, weight in load_model(base.folder).named_parameters():
        assert (ours[name] - weight).abs().max() < 0.01, name


def copy_quantized(path: Path, to: Path) -> None:
    """Copy a GGUF file with its matrices in eight bits."""
    reader = GGUFReader(path)
    writer = GGUFWriter(to, "llama")
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            kinds = field.types
            writer.add_key_value(name, field.contents(), kinds[0], *kinds[1:2])
    for tensor in reader.tensors:
        rows = tensor.data.reshape(tuple(reversed(tensor.shape.tolist())))
        if len(tensor.shape) == 2 and int(tensor.shape[0]) % 32 == 0:
            kind = GGMLQuantizationType.Q8_0
            data = quantize(np.ascontiguousarray(rows), kind)
            writer.add_tensor(tensor.name, data, raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, rows)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("cut", [8, 200, 5000, -40_000])
def test_a_cut_file_is_refused(
    home: Path, write_base: Callable[..., Path], tmp_path: Path, cut: int
) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(adopt_folder(home, write_base()).folder, path, "a name")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelVersionError, match=r"no whole GGUF file|has shape"):
        adopt_gguf(home, path)


def test_another_family_is_refused_with_those_that_are_known(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = GGUFWriter(path, "gemma3")
    writer.add_context_length(64)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelVersionError, match=r"'gemma3'; LightLM starts from Qwen3"):
        adopt_gguf(home, path)
