"""A base from a GGUF file: weights dequantized to fp32, the tokenizer rebuilt from its fields."""

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from lightlm.bases.folder import build, clean_card, grow, hash_files, write_config
from lightlm.bases.pretrained import WEIGHTS_FILE, Base, Origin, check_shapes, refuse_family
from lightlm.bases.vocabulary import build_tokenizer
from lightlm.bases.weights import write
from lightlm.errors import LightLMError, ModelVersionError
from lightlm.json_object import JsonObject
from lightlm.model.config import ModelConfig, RopeScaling
from lightlm.model.families import describe_config, list_shapes
from lightlm.model.gguf import (
    ARCHITECTURES,
    ROPE_FACTORS,
    find_turned,
    import_gguf,
    name_tensors,
    read_tensors,
    read_vocabulary,
    scale_frequencies,
    unname_tensors,
)
from lightlm.params import describe_validation
from lightlm.store.lock import ignore

LLAMA3_FACTORS = (8.0, 32.0)
"""Factors of Llama 3.1 and 3.2; a GGUF file has only what they make of the frequencies."""

MAX_TEMPLATE = 100_000


def adopt_gguf(
    home: Path,
    path: Path,
    *,
    report: Callable[[str], None] = ignore,
    note_seconds: Callable[[float], None] = lambda seconds: None,
) -> Base:
    """Return the base of a GGUF file, in the store; once per content.

    Raises:
        ModelVersionError: it is no GGUF file of a known family, or the package gguf is missing.
        TokenizerError: its tokenizer loses text.
        StoreError: the disk refused, or has no room.
    """
    reader = _open(path)
    with _explain(path):
        fields = {name: field.contents() for name, field in reader.fields.items()}
        config = read_shape(path, reader, fields)
        _check_tensors(path, reader, config)
        license_name = fields.get("general.license")
        origin = Origin.model_validate(
            {
                "kind": "gguf",
                "id": path.name,
                "digest": hash_files([path]),
                "end_of_text": "",
                **clean_card(license_name, fields.get("general.languages")),
            }
        )

    @functools.cache
    def give_tokenizer() -> tuple[bytes, str | None]:
        vocabulary = read_vocabulary(path)
        end = fields.get("tokenizer.ggml.eos_token_id")
        named = vocabulary.tokens[end] if isinstance(end, int) else None
        return json.dumps(build_tokenizer(vocabulary, path.name)).encode(), named

    def write_files(scratch: Path, entries: int) -> None:
        with _explain(path):
            _write(reader, fields, config, scratch, entries, give_tokenizer()[0])

    num_bytes = 4 * sum(int(tensor.n_elements) for tensor in reader.tensors)
    return build(home, origin, write_files, config, give_tokenizer, num_bytes, report, note_seconds)


def read_shape(path: Path, reader: Any, fields: JsonObject) -> ModelConfig:
    """Return the shape that a GGUF file's metadata describes.

    Raises:
        ModelVersionError: another family, or a shape that is computed differently.
    """
    architecture = fields.get("general.architecture")
    families = {"qwen3": "qwen3", "qwen3moe": "qwen3", "llama": "llama", "qwen2": "qwen2"}
    if architecture not in ARCHITECTURES.values():
        raise refuse_family(architecture, path)

    def get(name: str, default: Any = None) -> Any:
        return fields.get(f"{architecture}.{name}", default)

    if get("expert_count") and architecture != "qwen3moe":
        raise refuse_family(f"{architecture} with experts", path)

    names = {tensor.name for tensor in reader.tensors}
    heads = get("attention.head_count")
    dim = get("embedding_length")
    theta = get("rope.freq_base", 10_000.0)
    head_dim = get("attention.key_length") or get("rope.dimension_count") or dim // heads
    shape = {
        "vocab_size": len(fields.get("tokenizer.ggml.tokens") or ()),
        "num_layers": get("block_count"),
        "model_dim": dim,
        "num_heads": heads,
        "num_kv_heads": get("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "ffn_dim": get("feed_forward_length"),
        "context_length": get("context_length"),
        "tie_embeddings": "output.weight" not in names,
        "rope_theta": theta,
        "norm_epsilon": get("attention.layer_norm_rms_epsilon"),
        "family": families[str(architecture)],
        "rope_scaling": _read_scaling(path, reader, fields, str(architecture), theta, head_dim),
    }
    if architecture == "qwen3moe":
        shape |= {
            "num_experts": get("expert_count"),
            "num_active_experts": get("expert_used_count"),
            "expert_ffn_dim": get("expert_feed_forward_length"),
        }

    try:
        return ModelConfig.model_validate(shape)
    except ValidationError as error:
        raise ModelVersionError(f"{path}: {describe_validation(error)}") from None


def _read_scaling(
    path: Path, reader: Any, fields: JsonObject, architecture: str, theta: float, head_dim: int
) -> RopeScaling | None:
    kind = fields.get(f"{architecture}.rope.scaling.type", "none")
    if kind == "linear":
        factor = fields.get(f"{architecture}.rope.scaling.factor")
        return RopeScaling.model_validate({"kind": "linear", "factor": factor})
    if kind != "none":
        raise ModelVersionError(
            f"{path}: the rotary scaling is {kind!r}; LightLM computes only none, linear and llama3"
        )

    factors = next((one.data for one in reader.tensors if one.name == ROPE_FACTORS), None)
    if factors is None:
        return None
    for factor in LLAMA3_FACTORS:
        scaling = RopeScaling(kind="llama3", factor=factor)
        values = describe_config(_probe_config(scaling), 0)["rope_scaling"]
        expected = scale_frequencies(values, theta, head_dim)
        if expected.shape == factors.shape and np.allclose(expected, factors, rtol=1e-3):
            return scaling
    raise ModelVersionError(
        f"{path}: its rotary factors are none that Llama 3.1 or 3.2 has; give the model's Hugging "
        "Face folder instead"
    )


def _probe_config(scaling: RopeScaling) -> ModelConfig:
    """Return some Llama shape with this scaling, for the names of its values."""
    return ModelConfig(
        vocab_size=257, num_layers=1, model_dim=8, num_heads=1, num_kv_heads=1, head_dim=8,
        ffn_dim=8, context_length=8, family="llama", rope_scaling=scaling,
    )  # fmt: skip


def _check_tensors(path: Path, reader: Any, config: ModelConfig) -> None:
    """Compare the shapes of all tensors with the metadata's, before one is read.

    Raises:
        ModelVersionError: naming the first that is missing or of another shape.
    """
    # A view of a single number in every shape: names and shapes, no memory.
    wanted = name_tensors(
        {
            name: np.broadcast_to(np.float32(0), shape)
            for name, shape in list_shapes(config).items()
            if "mlp.experts." not in name
        }
    )
    found = {tensor.name: tuple(reversed(tensor.shape.tolist())) for tensor in reader.tensors}
    check_shapes({name: array.shape for name, array in wanted.items()}, found, path)


def _write(
    reader: Any,
    fields: JsonObject,
    config: ModelConfig,
    scratch: Path,
    entries: int,
    tokenizer: bytes,
) -> None:
    (scratch / "tokenizer.json").write_bytes(tokenizer)
    ids = {
        kind: fields.get(f"tokenizer.ggml.{theirs}_token_id")
        for kind, theirs in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
    }
    tokens = fields["tokenizer.ggml.tokens"]
    values = describe_config(config, 0) | {f"{kind}_token_id": index for kind, index in ids.items()}
    write_config(scratch, values, entries)

    described: JsonObject = {"tokenizer_class": "PreTrainedTokenizerFast"}
    described |= {
        f"{kind}_token": tokens[index] for kind, index in ids.items() if index is not None
    }
    described["clean_up_tokenization_spaces"] = False
    template = fields.get("tokenizer.chat_template")
    if isinstance(template, str) and len(template) <= MAX_TEMPLATE:
        described["chat_template"] = template
    (scratch / "tokenizer_config.json").write_text(json.dumps(described, indent=2), "utf-8")

    weights = unname_tensors(read_tensors(reader), find_turned(values))
    wanted = {name: weights[name] for name in list_shapes(config)}
    write(wanted, scratch / WEIGHTS_FILE, grow(wanted, entries))


def _open(path: Path) -> Any:
    gguf = import_gguf()
    with _explain(path):
        return gguf.GGUFReader(path)


@contextmanager
def _explain(path: Path) -> Iterator[None]:
    """Turn what reading a damaged file raises into an error that a person understands.

    Raises:
        ModelVersionError: whatever numpy or the package gguf raised.
    """
    try:
        yield
    except LightLMError:
        raise
    except Exception as error:  # noqa: BLE001  (the package checks nothing: any error can come)
        line = " ".join(str(error).split())[:200]
        raise ModelVersionError(
            f"{path} is no whole GGUF file that can be read ({line}); download it again"
        ) from None
