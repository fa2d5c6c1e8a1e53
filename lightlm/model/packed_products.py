"""Products with weights that are packed once: by oneDNN in fp32 or bf16, by FBGEMM in fp16.

Both are private calls of torch. Each is tried on this machine and compared before it is used.

F.linear read weights at 15 GB/s of 35 GB/s that a copy moves, oneDNN's packed layout at 24 to 35
(bf16 and fp32, one thread of an EPYC, November 2026). Small models spend as much on oneDNN's own
preparation of each product, 9 to 13 us; FBGEMM takes 2 us. At 17M parameters all products of a
token took 1.3 ms with it, 4.9 in fp32 and 2.4 in bf16 (one thread of a busy Sapphire Rapids).
FBGEMM's error is a sixteenth of bf16's.
"""

import functools
import math
import time
import warnings

import torch
from torch import Tensor
from torch.nn import functional

PACKED_DTYPES = (torch.float32, torch.bfloat16)
"""Data types that oneDNN packs."""

MANY_ROWS = 16
"""Rows that a weight is packed for, if that serves fewer rows as well."""


class PackedLinear:
    """x (B, in) to (B, out) by a weight (out, in), packed by oneDNN where this build of torch has
    it.
    """

    def __init__(self, weight: Tensor, batch_size: int) -> None:
        self.weight = weight
        self.packed = pack(weight, batch_size)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the product."""
        if self.packed is None:
            return functional.linear(x, self.weight)
        return multiply(x, self.packed)

    def add(self, x: Tensor, to: Tensor) -> Tensor:
        """Return the product added to `to`, in one call."""
        if self.packed is None:
            return to + functional.linear(x, self.weight)
        return torch.ops.mkldnn._linear_pointwise.binary(x, to, self.packed, None, "add")


class HalfLinear:
    """x (B, in) to (B, out), both fp32, by a weight (out, in) that FBGEMM keeps in fp16."""

    def __init__(self, weight: Tensor) -> None:
        # torch's functions of these names and not torch.ops: a third of the time, and they warn by
        # `warnings`.
        self.packed = torch.fbgemm_pack_gemm_matrix_fp16(weight.detach().float().contiguous())

    def __call__(self, x: Tensor) -> Tensor:
        """Return the product."""
        return torch.fbgemm_linear_fp16_weight_fp32_activation(x, self.packed, None)  # pyright: ignore

    def add(self, x: Tensor, to: Tensor) -> Tensor:
        """Return the product added to `to`."""
        return self(x).add_(to)


def pack(weight: Tensor, batch_size: int) -> Tensor | None:
    """Return the weight in oneDNN's layout for `batch_size` rows; None where it has none for it."""
    if not is_packing_available(weight.dtype):
        return None
    num_rows = choose_num_rows(weight.dtype) if batch_size == 1 else batch_size
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach(), num_rows)


@functools.cache
def choose_num_rows(dtype: torch.dtype) -> int:
    """Return the rows to pack a weight for that is read one row at a time: the faster of 1 and
    MANY_ROWS.

    At 135M parameters in fp32 a token took 19.9 ms in the layout for one row and 14.8 ms in that
    for sixteen (one thread of an EPYC, November 2026).
    """
    if not serves_fewer_rows(dtype):
        return 1

    weight = torch.ones(1024, 1024, dtype=dtype)
    x = torch.ones(1, 1024, dtype=dtype)
    seconds = {}

    for num_rows in (1, MANY_ROWS):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, num_rows)
        seconds[num_rows] = math.inf
        for _ in range(8):
            started = time.perf_counter()
            multiply(x, packed)
            seconds[num_rows] = min(seconds[num_rows], time.perf_counter() - started)

    return min(seconds, key=seconds.__getitem__)


@functools.cache
def serves_fewer_rows(dtype: torch.dtype) -> bool:
    """Return whether a weight packed for MANY_ROWS serves fewer rows; in bf16 it does not."""
    return is_packing_available(dtype) and is_product_right(dtype, MANY_ROWS, (1, 3))


@functools.cache
def is_packing_available(dtype: torch.dtype) -> bool:
    """Return whether products of this dtype can be packed on this machine."""
    return (
        dtype in PACKED_DTYPES
        and torch.backends.mkldnn.is_available()
        and is_product_right(dtype, 1, (1,))
    )


def is_product_right(dtype: torch.dtype, packed_for: int, used_for: tuple[int, ...]) -> bool:
    """Return whether a weight packed for some rows serves each number of rows: tried, and compared
    to the plain one.
    """
    weight = torch.arange(-32, 32, dtype=dtype).view(4, 16) / 16
    ones = [torch.ones(num_rows, 16, dtype=dtype) for num_rows in used_for]
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, packed_for)
        found = [multiply(x, packed) for x in ones]
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return all(
        torch.allclose(product.float(), functional.linear(x, weight).float(), atol=0.05)
        for product, x in zip(found, ones, strict=True)
    )


def multiply(x: Tensor, packed: Tensor) -> Tensor:
    """Return the product of x (B, in) and a weight in oneDNN's layout, (B, out)."""
    return torch.ops.mkldnn._linear_pointwise.default(x, packed, None, "none", [], "")


@functools.cache
def is_half_available() -> bool:
    """Return whether FBGEMM is in this torch and right on this machine: tried and compared."""
    weight = torch.arange(-32, 32, dtype=torch.float32).view(4, 16) / 16
    x = torch.ones(1, 16)
    try:
        with warnings.catch_warnings():  # "deprecated", once a process: without it oneDNN serves
            warnings.simplefilter("ignore")
            found = HalfLinear(weight)(x)
    except (RuntimeError, AttributeError, NotImplementedError, TypeError):
        return False
    return torch.allclose(found, functional.linear(x, weight), atol=1e-3)
