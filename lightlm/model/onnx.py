"""The model as an ONNX graph, for ONNX Runtime and the browser: tokens (B, T) in, logits (B, T, V)
out, fp32.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightlm.errors import ModelVersionError
from lightlm.model.transformer import Transformer

FILE = "model.onnx"


class Logits(torch.nn.Module):
    """The function of the graph: it reads all positions at each call, without a cache."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return logits (B, T, V) of tokens (B, T), int64."""
        return self.model(tokens)


def write_onnx(model: Transformer, path: Path) -> None:
    """Write the graph with weights inside; batch and length stay free.

    Raises:
        ModelVersionError: a package is missing, or the model has experts, whose routing ONNX does
            not express.
    """
    _import("onnx")
    _import("onnxscript")
    if model.config.is_mixture_of_experts:
        raise ModelVersionError(
            "a mixture of experts cannot be exported to onnx; export it to hf or gguf"
        )

    length = min(16, model.config.context_length)
    example = torch.zeros(2, length, dtype=torch.int64)
    shapes = (
        {
            0: torch.export.Dim("batch"),
            1: torch.export.Dim("length", max=model.config.context_length),
        },
    )

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Logits(model).eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=["tokens"],
            output_names=["logits"],
            verbose=False,
        )

    assert program is not None
    program.save(str(path), external_data=False)


def run_onnx(path: Path, tokens: np.ndarray) -> np.ndarray:
    """Return the graph's logits (B, T, V) of tokens (B, T), int64.

    Raises:
        ModelVersionError: the package onnxruntime is missing.
    """
    session = _import("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"tokens": tokens})[0]


def _import(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise ModelVersionError(
            f"ONNX wants the package {name}; run `pip install 'lightlm[export]'`"
        ) from None
