"""The keys and values of a batch whose texts come and go: every text ends at the same position.

Texts of unequal length are padded on the left, as in `KVCache`, so that one step appends a position
to all of them. A text that joins or leaves copies its own row; the others stay where they are.
"""

import torch
from torch import Tensor

from lightlm.model.attention import KVCache
from lightlm.model.config import ModelConfig

FIRST_POSITIONS = 128
"""Positions that the first tensors have room for; they double until they hold the context."""


class RowCache:
    """Keys and values of up to `max_rows` texts; the first `num_rows` rows are in use."""

    def __init__(
        self, config: ModelConfig, max_rows: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.config = config
        self.max_rows = max_rows
        # A quarter of the context is spare, so that rows move to the front once per quarter.
        self.max_positions = config.context_length + config.context_length // 4 + 1
        self.lengths: list[int] = []
        """Positions that each row has filled."""

        self._dtype = dtype
        self._device = device
        self._end = 0  # of every row
        self._tensors: list[Tensor] = []  # (R, K, P, D): keys of every layer, then values
        self._view: KVCache | None = None

    @property
    def num_rows(self) -> int:
        """The texts in the cache."""
        return len(self.lengths)

    def open_view(self) -> KVCache:
        """Return the rows as a step takes them, with room for one further position.

        Call `advance` after the step.
        """
        if self._end == self._num_positions:
            if self._num_positions < self.max_positions:
                self._allocate(len(self._tensors[0]), 2 * self._num_positions)
            else:
                self._move(max(self.lengths))

        if self._view is None:
            self._view = self._make_view()
        return self._view

    def advance(self) -> None:
        """Count the position that a step has appended to every row."""
        self._end += 1
        self.lengths = [length + 1 for length in self.lengths]

    def append(self, cache: KVCache) -> None:
        """Add the rows of a cache that has read its texts, padded on the left."""
        num_new = len(cache.keys[0])
        padding = [0] * num_new if cache.padding is None else cache.padding.tolist()
        first = self.num_rows
        if not first:
            self._end = 0

        self._provide(first + num_new, cache.length)
        begin = self._end - cache.length
        for tensor, new in zip(self._tensors, [*cache.keys, *cache.values], strict=True):
            tensor[first : first + num_new, :, begin : self._end] = new[:, :, : cache.length]

        self.lengths += [cache.length - pad for pad in padding]
        self._view = None

    def remove(self, row: int) -> None:
        """Remove a row; the last row takes its place."""
        last = self.num_rows - 1
        if row != last:
            begin = self._end - self.lengths[last]
            for tensor in self._tensors:
                tensor[row, :, begin : self._end] = tensor[last, :, begin : self._end]
            self.lengths[row] = self.lengths[last]

        self.lengths.pop()
        self._view = None

    @property
    def _num_positions(self) -> int:
        return self._tensors[0].shape[2] if self._tensors else 0

    def _make_view(self) -> KVCache:
        longest = max(self.lengths)
        begin = self._end - longest
        rows = [tensor[: self.num_rows, :, begin:] for tensor in self._tensors]
        padding = [longest - length for length in self.lengths]
        layers = self.config.num_layers
        padded = torch.tensor(padding, device=self._device) if any(padding) else None
        return KVCache(rows[:layers], rows[layers:], longest, padded)

    def _provide(self, num_rows: int, num_positions: int) -> None:
        """Make room for that many rows, and for `num_positions` before the end of the rows."""
        rows = len(self._tensors[0]) if self._tensors else 0
        if num_rows > rows or num_positions > self._num_positions:
            self._allocate(
                rows if num_rows <= rows else min(self.max_rows, max(num_rows, 2 * rows)),
                max(FIRST_POSITIONS, self._num_positions, 2 * num_positions),
            )
        if self._end < num_positions:
            self._move(num_positions)

    def _move(self, end: int) -> None:
        """Move the rows so that they end at position `end`."""
        longest = max(self.lengths, default=0)
        for tensor in self._tensors:
            kept = tensor[: self.num_rows, :, self._end - longest : self._end].clone()
            tensor[: self.num_rows, :, end - longest : end] = kept
        self._end = end
        self._view = None

    def _allocate(self, num_rows: int, num_positions: int) -> None:
        """Copy what is filled into tensors with more rows or positions."""
        num_positions = min(num_positions, self.max_positions)
        shape = (num_rows, self.config.num_kv_heads, num_positions, self.config.head_dim)
        before = self._tensors
        self._tensors = [
            torch.zeros(shape, dtype=self._dtype, device=self._device)
            for _ in range(2 * self.config.num_layers)
        ]

        for old, new in zip(before, self._tensors, strict=False):
            new[: self.num_rows, :, : self._end] = old[: self.num_rows, :, : self._end]
        self._view = None
