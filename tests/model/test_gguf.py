import dataclasses
import json
import sys

import numpy as np
import pytest

from lightlm.errors import ModelVersionError
from lightlm.model.gguf import (
    FILE,
    name_tensors,
    read_gguf,
    read_vocabulary,
    read_weights,
    unname_tensors,
    write_gguf,
)
from lightlm.versions.gguf_export import check_tokens


@pytest.fixture(params=["dense", "experts"])
def folder(request, hugging_face_folder):
    return hugging_face_folder(num_experts=4 if request.param == "experts" else 0)


def test_what_is_read_back_from_the_file_is_the_folder_bit_for_bit(folder, tmp_path):
    write_gguf(folder, tmp_path / FILE, "a name")
    weights = read_weights(folder)
    again = unname_tensors(read_gguf(tmp_path / FILE))
    assert again.keys() == weights.keys()
    for name, weight in weights.items():
        assert np.array_equal(again[name], weight), name


def test_names_are_llama_cpps_and_experts_are_stacked(folder):
    named = name_tensors(read_weights(folder))
    assert {
        "token_embd.weight",
        "output_norm.weight",
        "output.weight",
        "blk.0.attn_q_norm.weight",
    } <= named.keys()
    if "blk.0.ffn_gate_exps.weight" in named:
        assert named["blk.0.ffn_gate_exps.weight"].shape[0] == 4
    else:
        assert "blk.0.ffn_gate.weight" in named


def test_metadata_and_tokens_are_the_folders(folder, tmp_path):
    from gguf import GGUFReader

    write_gguf(folder, tmp_path / FILE, "a name")
    reader = GGUFReader(tmp_path / FILE)
    config = json.loads((folder / "config.json").read_text())
    architecture = reader.fields["general.architecture"].contents()
    assert architecture == ("qwen3moe" if config["model_type"] == "qwen3_moe" else "qwen3")
    assert (
        reader.fields[f"{architecture}.context_length"].contents()
        == config["max_position_embeddings"]
    )

    assert (
        reader.fields[f"{architecture}.attention.head_count_kv"].contents()
        == config["num_key_value_heads"]
    )
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    assert len(tokens) == config["vocab_size"]
    assert tokens[config["eos_token_id"]] == "<|endoftext|>"
    vocab = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    assert all(tokens[index] == token for token, index in vocab.items())


def test_tokens_are_compared_with_llama_cpps_and_a_wrong_rule_is_refused(
    hugging_face_folder, tmp_path, monkeypatch
):
    folder = hugging_face_folder()
    write_gguf(folder, tmp_path / FILE, "a name")
    assert read_vocabulary(tmp_path / FILE).rule == "llama-bpe"
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    assert check_tokens(folder, tmp_path) == "llama.cpp's rules"
    wrong = dataclasses.replace(read_vocabulary(tmp_path / FILE), merges=[], rule="gpt-2")
    monkeypatch.setattr("lightlm.model.gguf.describe_vocabulary", lambda *_: wrong)
    write_gguf(folder, tmp_path / FILE, "a name")
    with pytest.raises(ModelVersionError, match=r"as other tokens than this model's.*--to hf"):
        check_tokens(folder, tmp_path)
