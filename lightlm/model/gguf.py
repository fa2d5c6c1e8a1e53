"""The model as a GGUF file, for llama.cpp, Ollama and LM Studio: written from a Hugging Face
folder, and read back.

Names and metadata are those of llama.cpp's architectures qwen3, qwen3moe, llama and qwen2. Weights
are fp32, or of a smaller type (quantization.py).
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from lightlm.errors import ModelVersionError
from lightlm.json_object import JsonObject
from lightlm.model.llama_vocabulary import UNKNOWN, LlamaVocabulary, describe_vocabulary
from lightlm.model.quantization import FILE_TYPES, Quantization, quantize_tensors

FILE = "model.gguf"

LOSSLESS_FILE = "lightlm_tokenizer.json"
"""Tokenizer of a model that began from a base: as the base's, but every byte has a token."""

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

ARCHITECTURES = {
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    "llama": "llama",
    "qwen2": "qwen2",
}
"""transformers' model types and llama.cpp's architectures."""

ROPE_FACTORS = "rope_freqs.weight"
"""llama.cpp's tensor of what Llama 3 divides each rotary frequency by."""

TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
EXPERT_PARTS = {
    "gate_proj": "ffn_gate_exps",
    "up_proj": "ffn_up_exps",
    "down_proj": "ffn_down_exps",
}


def write_gguf(folder: Path, path: Path, name: str, quantization: Quantization = "f32") -> None:
    """Write the Hugging Face folder as one GGUF file; `name` is what runtimes show.

    Raises:
        ModelVersionError: the package gguf is missing, or llama.cpp cannot cut text as the
            tokenizer does.
    """
    gguf = import_gguf()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    own = folder / LOSSLESS_FILE
    path_of_tokenizer = own if own.is_file() else folder / "tokenizer.json"
    tokenizer = path_of_tokenizer.read_text(encoding="utf-8")
    vocabulary = describe_vocabulary(tokenizer, config["vocab_size"])
    is_sparse = config["model_type"] == "qwen3_moe"
    writer = gguf.GGUFWriter(path, ARCHITECTURES[config["model_type"]])
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
    writer.add_file_type(gguf.LlamaFileType[FILE_TYPES[quantization]])
    if quantization not in ("f32", "f16"):
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)

    if config["model_type"] == "llama":
        writer.add_vocab_size(config["vocab_size"])
        writer.add_rope_dimension_count(config["head_dim"])
    factors = _add_rope_scaling(gguf, writer, config)

    if is_sparse:
        writer.add_expert_count(config["num_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])

    _add_tokenizer(writer, vocabulary, config)
    if (template := read_chat_template(folder)) is not None:
        writer.add_chat_template(template)
    named = name_tensors(read_weights(folder), find_turned(config))
    for tensor_name, (tensor, kind) in quantize_tensors(gguf, named, quantization).items():
        writer.add_tensor(tensor_name, tensor, raw_dtype=kind)
    if factors is not None:
        writer.add_tensor(ROPE_FACTORS, factors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_gguf(path: Path) -> dict[str, np.ndarray]:
    """Return every tensor of a GGUF file by llama.cpp's name, rows first, fp32 whatever it was
    quantized to.

    Raises:
        ModelVersionError: the package gguf is missing.
    """
    return read_tensors(import_gguf().GGUFReader(path))


def read_tensors(reader: Any) -> dict[str, np.ndarray]:
    """Return every tensor of an open GGUF file, as `read_gguf` does."""
    dequantize = import_gguf().quants.dequantize
    return {
        tensor.name: dequantize(tensor.data, tensor.tensor_type).reshape(
            tuple(reversed(tensor.shape.tolist()))
        )
        for tensor in reader.tensors
        if tensor.name != ROPE_FACTORS
    }


def find_turned(config: JsonObject) -> dict[str, int]:
    """Return the heads of the matrices whose rows llama.cpp keeps in another order, by part.

    Of its architecture llama alone: it turns neighbors by rotary positions, where transformers
    turns halves.
    """
    if config["model_type"] != "llama":
        return {}
    return {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}


def interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """Return rows with the two halves of each head interleaved, as llama.cpp has them."""
    halves = weight.reshape(heads, 2, -1, *weight.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(weight.shape)


def deinterleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """Return what `interleave` was given."""
    pairs = weight.reshape(heads, -1, 2, *weight.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(weight.shape)


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """Return the folder's weights by transformers' names."""
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def name_tensors(
    weights: dict[str, np.ndarray], turned: dict[str, int] | None = None
) -> dict[str, np.ndarray]:
    """Return weights by llama.cpp's names; a layer's experts are stacked into one tensor.

    `turned` is what `find_turned` says of the model.
    """
    named: dict[str, np.ndarray] = {}
    experts: dict[str, dict[int, np.ndarray]] = {}
    for name, weight in weights.items():
        stem, _, kind = name.rpartition(".")
        if stem in TOP:
            named[f"{TOP[stem]}.{kind}"] = weight
            continue
        _, _, layer, part = stem.split(".", 3)
        if part.startswith("mlp.experts."):
            _, _, expert, matrix = part.split(".")
            experts.setdefault(f"blk.{layer}.{EXPERT_PARTS[matrix]}.weight", {})[int(expert)] = (
                weight
            )
        else:
            heads = (turned or {}).get(PARTS[part])
            named[f"blk.{layer}.{PARTS[part]}.{kind}"] = (
                weight if heads is None else interleave(weight, heads)
            )

    for name, stack in experts.items():
        named[name] = np.stack([stack[index] for index in sorted(stack)])
    return named


def unname_tensors(
    named: dict[str, np.ndarray], turned: dict[str, int] | None = None
) -> dict[str, np.ndarray]:
    """Return what `name_tensors` was given.

    Raises:
        ModelVersionError: a tensor has a name that no layer here has.
    """
    tops = {short: long for long, short in TOP.items()}
    parts = {short: long for long, short in PARTS.items()}
    matrices = {short: long for long, short in EXPERT_PARTS.items()}
    weights: dict[str, np.ndarray] = {}

    for name, tensor in named.items():
        stem, _, kind = name.rpartition(".")
        if stem in tops:
            weights[f"{tops[stem]}.{kind}"] = tensor
            continue
        _, _, rest = stem.partition(".")
        layer, _, part = rest.partition(".")
        if part in matrices:
            for index, expert in enumerate(tensor):
                weights[f"model.layers.{layer}.mlp.experts.{index}.{matrices[part]}.weight"] = (
                    expert
                )
        elif part in parts:
            heads = (turned or {}).get(part)
            weights[f"model.layers.{layer}.{parts[part]}.{kind}"] = (
                tensor if heads is None else deinterleave(tensor, heads)
            )
        else:
            raise ModelVersionError(
                f"the GGUF file has a tensor {name!r}, which the families Qwen3, Llama and Qwen2 "
                "do not have; give another file"
            )

    return weights


def scale_frequencies(scaling: JsonObject, theta: float, head_dim: int) -> np.ndarray:
    """Return what Llama 3's scaling divides each rotary frequency by, (head_dim / 2,) in fp32."""
    frequencies = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low = scaling["low_freq_factor"]
    share = np.clip((turns - low) / (scaling["high_freq_factor"] - low), 0, 1)
    return (1 / (share + (1 - share) / scaling["factor"])).astype(np.float32)


def _add_rope_scaling(gguf: Any, writer: Any, config: JsonObject) -> np.ndarray | None:
    """Add a linear scaling's metadata; return the factors of Llama 3's, which are a tensor."""
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling["factor"])
    if scaling.get("rope_type") != "llama3":
        return None
    return scale_frequencies(scaling, config["rope_theta"], config["head_dim"])


def read_chat_template(folder: Path) -> str | None:
    """Return the chat template of a folder's tokenizer; None where it has none."""
    own = folder / "chat_template.jinja"
    if own.is_file():
        return own.read_text(encoding="utf-8")
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    template = values.get("chat_template")
    return template if isinstance(template, str) else None


def read_vocabulary(path: Path) -> LlamaVocabulary:
    """Return the tokenizer's fields of a GGUF file.

    Raises:
        ModelVersionError: the package gguf is missing.
    """
    fields = import_gguf().GGUFReader(path).fields

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

    for kind in ("eos", "bos", "pad"):
        if (index := config.get(f"{kind}_token_id")) is not None:
            getattr(writer, f"add_{kind}_token_id")(first_id(index))
    writer.add_add_bos_token(False)


def first_id(value: int | list[int]) -> int:
    """Return a config's token id; the first where it names several."""
    return value[0] if isinstance(value, list) else value


def import_gguf() -> Any:
    """Return the package gguf.

    Raises:
        ModelVersionError: it is missing.
    """
    try:
        import gguf
    except ImportError:
        raise ModelVersionError(
            "GGUF wants the package gguf; run `pip install 'lightlm[export]'`"
        ) from None
    return gguf
