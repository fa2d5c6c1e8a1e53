"""The GGUF export: the file, Ollama's Modelfile, and what both are compared with."""

import json
import math
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from lightlm.errors import CorruptError, ModelVersionError
from lightlm.versions.held_out import limit_sample

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from lightlm.model.quantization import Quantization
    from lightlm.model.transformer import Transformer

AGREEMENT = 0.02
"""Fraction by which llama.cpp's score of a file may differ from that of the weights read back.

llama.cpp rounds activations, too, where weights have 8 bits or fewer.
"""


class Rounded(BaseModel, frozen=True):
    """What a smaller type costs: bits per byte of the file and of fp32, on the same text.

    `scored_with` names who computed the file's own.
    """

    quantization: str
    bits_per_byte: float
    fp32_bits_per_byte: float
    num_bytes: int
    scored_with: str

    @property
    def cost(self) -> float:
        """Bits per byte by which the file is worse, as a fraction of fp32's."""
        return self.bits_per_byte / self.fp32_bits_per_byte - 1

    def format(self) -> str:
        """Return the figures in one line."""
        return (
            f"{self.quantization}: {self.bits_per_byte:.4f} bits per byte, fp32 "
            f"{self.fp32_bits_per_byte:.4f} ({self.cost:+.2%}), on {self.num_bytes:,} bytes by "
            f"{self.scored_with}"
        )


def make_gguf(name: str, source: Path, folder: Path, quantization: "Quantization") -> Path:
    """Write GGUF and Modelfile into `folder`; return a Hugging Face folder of what the file holds.

    `name` is what runtimes show. The returned folder lies in `folder`.

    Raises:
        CorruptError: a weight changed by more than its type rounds.
    """
    import numpy as np
    from safetensors.numpy import save_file

    from lightlm.model.gguf import (
        FILE,
        find_turned,
        read_gguf,
        read_weights,
        unname_tensors,
        write_gguf,
    )
    from lightlm.model.quantization import check_rounding

    write_gguf(source, folder / FILE, name, quantization)
    shape = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (folder / "Modelfile").write_text(write_modelfile(source, folder / FILE), "utf-8")
    weights = {
        part: np.ascontiguousarray(weight)
        for part, weight in unname_tensors(read_gguf(folder / FILE), find_turned(shape)).items()
    }
    check_rounding(read_weights(source), weights, quantization)

    again = folder / "read-back"
    again.mkdir()
    for kept in ("config.json", "generation_config.json"):
        shutil.copyfile(source / kept, again / kept)
    save_file(weights, again / "model.safetensors", metadata={"format": "pt"})
    return again


def write_modelfile(source: Path, path: Path) -> str:
    """Return Ollama's Modelfile for the GGUF file at `path`, made of the folder `source`."""
    from lightlm.model.gguf import first_id, read_vocabulary

    config = json.loads((source / "generation_config.json").read_text(encoding="utf-8"))
    shape = json.loads((source / "config.json").read_text(encoding="utf-8"))
    end = read_vocabulary(path).tokens[first_id(config["eos_token_id"])]
    return (
        f"FROM ./{path.name}\n"
        'TEMPLATE "{{ .Prompt }}"\n'
        f"PARAMETER num_ctx {shape['max_position_embeddings']}\n"
        f"PARAMETER temperature {config.get('temperature', 0.8)}\n"
        f"PARAMETER top_k {config.get('top_k', 50)}\n"
        f"PARAMETER top_p {config.get('top_p', 0.95)}\n"
        f"PARAMETER stop {json.dumps(end, ensure_ascii=False)}\n"
    )


def measure_rounding(
    ours: "Transformer",
    source: Path,
    again: Path,
    path: Path,
    quantization: "Quantization",
    documents: Sequence[bytes],
) -> Rounded:
    """Return the scores of a model in fp32 and of the GGUF file at `path`, whose weights are those
    of the folder `again`.

    llama.cpp itself computes the file's where llama-cpp-python is installed.

    Raises:
        CorruptError: llama.cpp's score is not that of the weights.
    """
    from lightlm.data.tokenization.tokenizer import load_tokenizer
    from lightlm.evaluation.scoring import encode_documents, evaluate_text
    from lightlm.model.hugging_face import load_model

    tokenizer = load_tokenizer(source)
    sample = limit_sample(documents, sum(one.numel() for one in ours.parameters()))
    before = evaluate_text(ours, tokenizer, sample)
    after = evaluate_text(load_model(again), tokenizer, sample)
    bits = after.bits_per_byte
    phrase = "LightLM from the file's weights"

    with suppress(ImportError):
        compute_logits = open_llama_logits(path, ours.config.context_length)
        nats = sum_nats(
            compute_logits, encode_documents(tokenizer, sample), ours.config.context_length
        )
        bits = nats / math.log(2) / after.num_bytes
        phrase = "llama-cpp-python"
        if not abs(bits - after.bits_per_byte) <= AGREEMENT * after.bits_per_byte:
            raise CorruptError(
                f"llama.cpp scores the {quantization} file at {bits:.4f} bits per byte, its "
                f"weights have {after.bits_per_byte:.4f}; not kept"
            )

    return Rounded(
        quantization=quantization,
        bits_per_byte=bits,
        fp32_bits_per_byte=before.bits_per_byte,
        num_bytes=after.num_bytes,
        scored_with=phrase,
    )


def sum_nats(
    compute_logits: "Callable[[np.ndarray], np.ndarray]", tokens: "np.ndarray", length: int
) -> float:
    """Return the nats of tokens[1:] in windows of `length` side by side.

    `compute_logits` returns the logits (T, V) of ids (T,).
    """
    import numpy as np

    total = 0.0
    for start in range(0, len(tokens) - 1, length):
        window = tokens[start : start + length + 1]
        logits = compute_logits(window[:-1]).astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        chosen = logits[np.arange(len(logits)), window[1:]]
        total += float((np.log(np.exp(logits).sum(-1)) - chosen).sum())

    return total


def check_tokens(source: Path, folder: Path) -> str:
    """Compare tokens of hard texts and all entries with llama.cpp's; return which code made those.

    Raises:
        ModelVersionError: a text has other tokens there.
    """
    from lightlm.data.tokenization.hard_texts import HARD_TEXTS, surround
    from lightlm.data.tokenization.tokenizer import load_tokenizer
    from lightlm.model.gguf import FILE, read_vocabulary
    from lightlm.model.llama_vocabulary import REMEDY, SPACE_SYMBOL, LlamaTokenizer, overlap

    tokenizer = load_tokenizer(source)
    vocabulary = read_vocabulary(folder / FILE)
    added = vocabulary.added_tokens()
    entries = [tokenizer.decode([index]) for index in range(tokenizer.vocab_size)]
    texts = [*HARD_TEXTS, *surround(added), *overlap(added), *entries]
    # llama.cpp writes this symbol for spaces, and then cannot tell the two apart
    if vocabulary.scores:
        texts = [text for text in texts if SPACE_SYMBOL not in text]

    encode = LlamaTokenizer(vocabulary).encode
    phrase = "llama.cpp's rules"
    with suppress(ImportError):
        encode = open_llama_cpp(folder / FILE)
        phrase = "llama-cpp-python"

    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        if encode(text) != ids:
            raise ModelVersionError(
                f"llama.cpp would read {text[:60]!r} as other tokens than this model's; {REMEDY}"
            )

    return phrase


def open_llama_cpp(path: Path) -> "Callable[[str], list[int]]":
    """Return how llama.cpp itself encodes a text with the vocabulary of a GGUF file.

    Raises:
        ImportError: llama-cpp-python is not installed.
    """
    from llama_cpp import Llama  # pyright: ignore[reportMissingImports]

    llama = Llama(str(path), vocab_only=True, verbose=False)
    return lambda text: llama.tokenize(text.encode(), add_bos=False, special=False)


def open_llama_logits(path: Path, length: int) -> "Callable[[np.ndarray], np.ndarray]":
    """Return how llama.cpp itself computes the logits (T, V) of ids (T,), T <= `length`.

    Raises:
        ImportError: llama-cpp-python is not installed.
    """
    from llama_cpp import Llama  # pyright: ignore[reportMissingImports]

    llama = Llama(str(path), n_ctx=length, n_batch=length, logits_all=True, verbose=False)

    def compute_logits(ids: "np.ndarray") -> "np.ndarray":
        llama.reset()
        llama.eval(ids.tolist())
        return llama.scores[: len(ids)]

    return compute_logits
