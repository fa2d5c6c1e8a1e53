"""Smaller number types for the weights of a GGUF file, by the quantizers of the package gguf.

Vectors and the routers of experts stay fp32, as llama.cpp keeps them.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np

from lightlm.errors import CorruptError, InputError

Quantization = Literal["f32", "f16", "q8_0", "q5_0", "q4_0"]

QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)

FILE_TYPES = {
    "f32": "ALL_F32",
    "f16": "MOSTLY_F16",
    "q8_0": "MOSTLY_Q8_0",
    "q5_0": "MOSTLY_Q5_0",
    "q4_0": "MOSTLY_Q4_0",
}
"""What llama.cpp calls a file whose matrices have the type."""

BLOCK = 32
"""Weights of a row that share a scale."""

ROUNDING = {
    "f32": 0.0,
    "f16": 2**-11,
    "q8_0": 0.58 / 127,
    "q5_0": 1.05 / 16,
    "q4_0": 1.05 / 8,
}
"""Largest change of a weight as a fraction of the largest weight in its block.

Half a step for q8_0. The two smaller types reach one step less on one side, so that a weight there
can change by a whole step. The scale itself is rounded to fp16.
"""


def check_quantization(name: str) -> Quantization:
    """Return the type of that name.

    Raises:
        InputError: it is none that the package gguf quantizes to.
    """
    for known in QUANTIZATIONS:
        if name.lower() == known:
            return known
    hint = ""
    if name.lower().startswith(("q4_k", "q5_k", "q6_k", "q3_k", "q2_k", "iq")):
        hint = f"; for {name} export f32, then run `llama-quantize model.gguf out.gguf {name}`"
    raise InputError(f"--quantize is {name!r}; give one of {', '.join(QUANTIZATIONS)}{hint}")


def quantize_tensors(
    gguf: Any, named: Mapping[str, np.ndarray], quantization: Quantization
) -> dict[str, tuple[np.ndarray, Any]]:
    """Return the bytes and the type of each tensor, by llama.cpp's name."""
    is_tied = "output.weight" not in named
    head = "token_embd.weight" if is_tied else "output.weight"
    quantized = {}

    for name, tensor in named.items():
        kind = gguf.GGMLQuantizationType[
            choose_type(name, tensor.shape, quantization, is_head=name == head)
        ]
        quantized[name] = (gguf.quants.quantize(tensor, kind), kind)

    return quantized


def choose_type(
    name: str, shape: tuple[int, ...], quantization: Quantization, *, is_head: bool
) -> str:
    """Return llama.cpp's name of the type that a tensor gets.

    The matrix that gives the logits keeps at least 8 bits, as in llama-quantize. Rows that are no
    whole blocks become fp16.
    """
    if len(shape) < 2 or "ffn_gate_inp" in name or quantization == "f32":
        return "F32"
    if quantization == "f16" or shape[-1] % BLOCK:
        return "F16"
    return "Q8_0" if is_head else quantization.upper()


def check_rounding(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], quantization: Quantization
) -> None:
    """Compare weights with those that a file gives back, block by block.

    Raises:
        CorruptError: a weight changed by more than its type rounds.
    """
    limit = ROUNDING[quantization]
    for name, weight in before.items():
        if name not in after or after[name].shape != weight.shape:
            raise CorruptError(f"the GGUF file lacks {name} of shape {weight.shape}; not kept")
        size = BLOCK if weight.shape[-1] % BLOCK == 0 else weight.shape[-1]
        blocks = weight.reshape(-1, size)
        changes = np.abs(after[name].reshape(-1, size) - blocks).max(1)
        largest = np.abs(blocks).max(1)
        # Below fp16's smallest normal number its steps no longer shrink.
        if not (changes <= limit * largest + (2**-24 if limit else 0.0)).all():
            raise CorruptError(f"{name} in the GGUF file is not the model's as {quantization}")
