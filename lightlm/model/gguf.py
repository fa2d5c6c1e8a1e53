"""The model as a GGUF file, for llama.cpp, Ollama and LM Studio: written from a Hugging Face
folder, and read back.

Names and metadata are those of llama.cpp's architectures qwen3 and qwen3moe. Weights stay fp32: at
these sizes a smaller type saves little, and every figure can be compared.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from lightlm.errors import ModelVersionError
from lightlm.json_object import JsonObject
from lightlm.model.llama_vocabulary import UNKNOWN, LlamaVocabulary, describe_vocabulary

FILE = "model.gguf"

PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
}
"""Names of a layer's tensors: transformers' and llama.cpp's. Source: llama.cpp,
gguf-py/gguf/tensor_mapping.py.
"""

TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
EXPERT_PARTS = {
    "gate_proj": "ffn_gate_exps",
    "up_proj": "ffn_up_exps",
    "down_proj": "ffn_down_exps",
}


def write_gguf(folder: Path, path: Path, name: str) -> None:
    """Write the Hugging Face folder as one GGUF file; `name` is what runtimes show.

    Raises:
        ModelVersionError: the package gguf is missing, or llama.cpp cannot cut text as the
            tokenizer does.
    """
    gguf = _import_gguf()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokenizer = (folder / "tokenizer.json").read_text(encoding="utf-8")
    vocabulary = describe_vocabulary(tokenizer, config["vocab_size"])
    is_sparse = config["model_type"] == "qwen3_moe"
    writer = gguf.GGUFWriter(path, "qwen3moe" if is_sparse else "qwen3")
    writer.add_name(name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)

    if is_sparse:
        writer.add_expert_count(config["num_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])

    _add_tokenizer(writer, vocabulary, config)
    for tensor_name, tensor in name_tensors(read_weights(folder)).items():
        writer.add_tensor(tensor_name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_gguf(path: Path) -> dict[str, np.ndarray]:
    """Return every tensor of a GGUF file by llama.cpp's name, rows first, fp32.

    Raises:
        ModelVersionError: the package gguf is missing.
    """
    reader = _import_gguf().GGUFReader(path)
    return {
        tensor.name: tensor.data.reshape(tuple(reversed(tensor.shape.tolist())))
        for tensor in reader.tensors
    }


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """Return the folder's weights by transformers' names."""
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def name_tensors(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return weights by llama.cpp's names; a layer's experts are stacked into one tensor."""
    named: dict[str, np.ndarray] = {}
    experts: dict[str, dict[int, np.ndarray]] = {}
    for name, weight in weights.items():
        stem = name.removesuffix(".weight")
        if stem in TOP:
            named[f"{TOP[stem]}.weight"] = weight
            continue
        _, _, layer, part = stem.split(".", 3)
        if part.startswith("mlp.experts."):
            _, _, expert, matrix = part.split(".")
            experts.setdefault(f"blk.{layer}.{EXPERT_PARTS[matrix]}.weight", {})[int(expert)] = (
                weight
            )
        else:
            named[f"blk.{layer}.{PARTS[part]}.weight"] = weight

    for name, stack in experts.items():
        named[name] = np.stack([stack[index] for index in sorted(stack)])
    return named


def unname_tensors(named: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what `name_tensors` was given."""
    tops = {short: long for long, short in TOP.items()}
    parts = {short: long for long, short in PARTS.items()}
    matrices = {short: long for long, short in EXPERT_PARTS.items()}
    weights: dict[str, np.ndarray] = {}

    for name, tensor in named.items():
        stem = name.removesuffix(".weight")
        if stem in tops:
            weights[f"{tops[stem]}.weight"] = tensor
            continue
        _, layer, part = stem.split(".")
        if part in matrices:
            for index, expert in enumerate(tensor):
                weights[f"model.layers.{layer}.mlp.experts.{index}.{matrices[part]}.weight"] = (
                    expert
                )
        else:
            weights[f"model.layers.{layer}.{parts[part]}.weight"] = tensor

    return weights


def read_vocabulary(path: Path) -> LlamaVocabulary:
    """Return the tokenizer's fields of a GGUF file.

    Raises:
        ModelVersionError: the package gguf is missing.
    """
    fields = _import_gguf().GGUFReader(path).fields

    def read(name: str, default: Any = None) -> Any:
        found = fields.get(f"tokenizer.ggml.{name}")
        return default if found is None else found.contents()

    return LlamaVocabulary(
        read("model"),
        read("pre"),
        read("tokens"),
        read("token_type"),
        read("merges", []),
        read("scores", []),
    )


def _add_tokenizer(writer: Any, vocabulary: LlamaVocabulary, config: JsonObject) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.rule)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)

    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(False)
    else:
        writer.add_token_merges(vocabulary.merges)

    if UNKNOWN in vocabulary.types:
        writer.add_unk_token_id(vocabulary.types.index(UNKNOWN))

    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)


def _import_gguf() -> Any:
    try:
        import gguf
    except ImportError:
        raise ModelVersionError(
            "GGUF wants the package gguf; run `pip install 'lightlm[export]'`"
        ) from None
    return gguf
