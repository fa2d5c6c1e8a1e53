"""Safetensors files by their bytes: headers read and checked before anything is allocated, weights
copied from several files into one. No torch.

Source: the safetensors format (8 bytes of the header's length, a JSON header, the data).
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lightlm.errors import ModelVersionError
from lightlm.json_object import JsonObject

MAX_HEADER_BYTES = 100_000_000
"""Bytes of a header; safetensors itself reads no longer one."""

MOST_TENSORS = 1 << 20

SIZES = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes per number by the name of its type; other types are no plain weights."""

COPY_BYTES = 1 << 24


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file: its type, its shape, and its first byte in the file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def num_bytes(self) -> int:
        """Bytes of its data."""
        return SIZES[self.dtype] * prod(self.shape)

    def read(self) -> bytes:
        """Return its data."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.num_bytes)


def read_header(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name, checked against the file's size.

    Raises:
        ModelVersionError: it is no such file, or is cut.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            values = json.loads(file.read(length))
        tensors = dict(_read_entries(path, values, 8 + length, size))
    except (OSError, ValueError, LookupError, TypeError, struct.error, RecursionError) as error:
        raise ModelVersionError(
            f"{path} is no whole safetensors file ({error}); download it again"
        ) from None

    return tensors


def _read_entries(
    path: Path, values: JsonObject, data: int, size: int
) -> Iterator[tuple[str, Tensor]]:
    if len(values) > MOST_TENSORS:
        raise ValueError(f"{len(values)} tensors")
    for name, entry in values.items():
        if name == "__metadata__":
            continue
        first, last = entry["data_offsets"]
        dtype = str(entry["dtype"])
        shape = tuple(entry["shape"])
        if dtype not in SIZES:
            raise ValueError(f"{name} is of type {dtype}; wanted {', '.join(SIZES)}")
        if not all(isinstance(length, int) and length >= 0 for length in shape):
            raise ValueError(f"{name} has the shape {shape}")
        tensor = Tensor(path, dtype, shape, data + first)
        if first < 0 or last - first != tensor.num_bytes or data + last > size:
            raise ValueError(f"{name} does not lie within the file")
        yield name, tensor


def merge(tensors: Mapping[str, Tensor], path: Path, grown: Mapping[str, int]) -> None:
    """Write tensors of other files as one file; `grown` are matrices that get so many rows, the
    new ones the mean of those that are there.
    """
    shapes = {
        name: (grown.get(name, tensor.shape[0]), *tensor.shape[1:])
        for name, tensor in tensors.items()
    }
    kinds = {name: tensor.dtype for name, tensor in tensors.items()}
    with path.open("wb") as file:
        file.write(_render_header(shapes, kinds))
        for name, tensor in tensors.items():
            _copy(tensor, file)
            if missing := shapes[name][0] - tensor.shape[0]:
                file.write(_average_rows(tensor) * missing)
    path.chmod(0o644)


def write(weights: Mapping[str, np.ndarray], path: Path, grown: Mapping[str, int]) -> None:
    """Write fp32 arrays as a file; `grown` as in `merge`."""
    whole = {name: np.ascontiguousarray(array, np.float32) for name, array in weights.items()}
    shapes = {
        name: (grown.get(name, len(array)), *array.shape[1:]) for name, array in whole.items()
    }
    with path.open("wb") as file:
        file.write(_render_header(shapes, dict.fromkeys(whole, "F32")))
        for name, array in whole.items():
            file.write(array.tobytes())
            if missing := shapes[name][0] - len(array):
                file.write(array.mean(0, dtype=np.float64).astype(np.float32).tobytes() * missing)
    path.chmod(0o644)


def _render_header(shapes: Mapping[str, Sequence[int]], kinds: Mapping[str, str]) -> bytes:
    values: JsonObject = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, shape in shapes.items():
        end = start + SIZES[kinds[name]] * prod(shape)
        values[name] = {"dtype": kinds[name], "shape": list(shape), "data_offsets": [start, end]}
        start = end
    header = json.dumps(values, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header


def _copy(tensor: Tensor, file: BinaryIO) -> None:
    left = tensor.num_bytes
    with tensor.path.open("rb") as source:
        source.seek(tensor.start)
        while left:
            piece = source.read(min(left, COPY_BYTES))
            if not piece:
                raise ModelVersionError(f"{tensor.path} is cut; download it again")
            file.write(piece)
            left -= len(piece)


def _average_rows(tensor: Tensor) -> bytes:
    """Return the mean of a matrix's rows in its own type."""
    data = tensor.read()
    if tensor.dtype == "BF16":
        wide = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        mean = wide.reshape(tensor.shape).mean(0, dtype=np.float64).astype(np.float32)
        return (mean.view(np.uint32) >> 16).astype("<u2").tobytes()
    kind = "<f4" if tensor.dtype == "F32" else "<f2"
    rows = np.frombuffer(data, kind).reshape(tensor.shape)
    return rows.mean(0, dtype=np.float64).astype(kind).tobytes()
