"""Training tokens that lie elsewhere: read by ranges, a block at a time, ahead of training, without
a copy of the whole.

Which window is sequence i stays a pure function of (seed, i): an epoch goes through the blocks in a
shuffled order, and the windows of GROUP_BLOCKS neighbors in that order are shuffled together. So
training needs a group and the next one here, however large the text is.
"""

import functools
import hashlib
import itertools
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, overload

import numpy as np

from lightlm.data.permutation import permute_range
from lightlm.data.token_array import TokenArray
from lightlm.errors import CorruptError, DatasetError
from lightlm.store.blocks import BlockCache
from lightlm.store.remote import RemoteFolder

GROUP_BLOCKS = 64
"""Blocks whose windows are shuffled together: 128 MB of blocks of 2 MB."""

MOST_OPEN = 3 * GROUP_BLOCKS
"""Blocks that stay mapped: two groups, and what readers still need of the one before."""

CONNECTIONS = 8
"""Blocks that are fetched at the same time."""


class Block(NamedTuple):
    """A range of a file at a URL: the file's name there, bytes from the start and in the block, and
    its SHA-256 in hex.
    """

    file: str
    start: int
    num_bytes: int
    digest: str


class BlockTokens(TokenArray):
    """A split's token ids in the blocks of a folder at a URL. Close it to end what is under way."""

    def __init__(
        self, blocks: Sequence[Block], dtype: str, folder: RemoteFolder, cache: BlockCache
    ) -> None:
        self._blocks = _Blocks(blocks, dtype, folder, cache)
        self._maps = self._blocks
        lengths = [block.num_bytes // np.dtype(dtype).itemsize for block in blocks]
        self._starts = [0, *itertools.accumulate(lengths)]
        self._find_order = functools.lru_cache(maxsize=2)(
            lambda context_length, seed: BlockOrder(np.array(lengths), context_length, seed)
        )

    def find_starts(self, first: int, number: int, *, context_length: int, seed: int) -> np.ndarray:
        """Return where the sequences from `first` on start, (number,) int64; their blocks, and
        those of the group after them, are on their way then.
        """
        order = self._find_order(context_length, seed)
        for group in order.list_groups(first, number):
            self._blocks.fetch_ahead(group)
        return order.find_starts(first, number)

    def close(self) -> None:
        """Ask for nothing more."""
        self._blocks.close()


class _Blocks(Sequence[np.ndarray]):
    """The ids of each block, fetched when they are asked for, or ahead."""

    def __init__(
        self, blocks: Sequence[Block], dtype: str, folder: RemoteFolder, cache: BlockCache
    ) -> None:
        self._blocks = blocks
        self._dtype = dtype
        self._folder = folder
        self._cache = cache
        self._lock = threading.Lock()
        self._open: OrderedDict[int, Future[np.ndarray]] = OrderedDict()
        self._pool = ThreadPoolExecutor(CONNECTIONS, "blocks")

    def __len__(self) -> int:
        return len(self._blocks)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | Sequence[np.ndarray]:
        """Return the ids of a block, or of several."""
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        if index >= len(self):
            raise IndexError(index)
        future = self._request(index)
        try:
            return future.result()
        except Exception:
            with self._lock:  # asked for anew by whoever wants it next
                if self._open.get(index) is future:
                    del self._open[index]
            raise

    def fetch_ahead(self, indices: Sequence[int]) -> None:
        """Begin to fetch blocks, in this order."""
        for index in indices:
            self._request(index)

    def close(self) -> None:
        """Cancel what waits."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _request(self, index: int) -> Future[np.ndarray]:
        with self._lock:
            future = self._open.pop(index, None) or self._pool.submit(self._fetch, index)
            self._open[index] = future
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
            return future

    def _fetch(self, index: int) -> np.ndarray:
        block = self._blocks[index]
        stop = block.start + block.num_bytes
        read = partial(self._folder.read, block.file, block.start, stop)
        try:
            return self._cache.read(block.digest, read).view(self._dtype)
        except FileNotFoundError:
            raise DatasetError(
                f"{self._folder.url} has lost {block.file[:16]}..., which its manifest names; make "
                "the corpus again"
            ) from None
        except CorruptError as error:
            raise CorruptError(
                f"{self._folder.url}/{block.file[:16]}..., bytes {block.start:,} to {stop:,}: "
                f"{error.damage}",
                "make the corpus again",
            ) from None


@dataclass(frozen=True)
class _Epoch:
    """An epoch: its blocks in their order, how many windows each and those before it have, and
    where in each block the first window starts.
    """

    blocks: np.ndarray
    ends: np.ndarray
    offsets: np.ndarray
    key: bytes


class BlockOrder:
    """The order of the sequences of blocks of `lengths` tokens, that follow each other."""

    def __init__(self, lengths: np.ndarray, context_length: int, seed: int) -> None:
        self._lengths = lengths
        self._starts = np.cumsum(lengths) - lengths
        self._context_length = context_length
        self._seed = seed
        self._windows = np.maximum(0, lengths - 1) // context_length
        self.num_windows = int(self._windows.sum())
        self._open_epoch = functools.lru_cache(maxsize=4)(self._make_epoch)
        if not self.num_windows:
            raise DatasetError(
                f"no block of the corpus has {context_length + 1:,} tokens, as a sequence needs; "
                "give a shorter model.context_length"
            )

    def find_starts(self, first: int, number: int) -> np.ndarray:
        """Return where the sequences from `first` on start, (number,) int64."""
        starts = np.empty(number, dtype=np.int64)
        done = 0
        while done < number:
            index, epoch = self._locate(first + done)
            group, before, end = self._find_group(epoch, index)
            stop = min(number, done + end - index)

            key = hashlib.sha256(epoch.key + group.to_bytes(8, "big")).digest()
            shuffled = permute_range(
                index - before, index - before + stop - done, end - before, key
            )
            windows = before + shuffled.astype(np.int64)
            places = np.searchsorted(epoch.ends, windows, side="right")
            blocks = epoch.blocks[places]
            own = windows - (epoch.ends[places] - self._windows[blocks])
            starts[done:stop] = (
                self._starts[blocks] + epoch.offsets[places] + own * self._context_length
            )
            done = stop
        return starts

    def list_groups(self, first: int, number: int) -> list[list[int]]:
        """Return the blocks of each group that the sequences from `first` on are of, and of the
        group after them.
        """
        groups = []
        last = first + number
        while True:
            index, epoch = self._locate(first)
            group, _, end = self._find_group(epoch, index)
            groups.append(epoch.blocks[group * GROUP_BLOCKS : (group + 1) * GROUP_BLOCKS].tolist())
            if first >= last:
                return groups
            first += end - index

    def _locate(self, sequence: int) -> tuple[int, _Epoch]:
        """Return which of its epoch a sequence is, and the epoch."""
        epoch, index = divmod(sequence, self.num_windows)
        return index, self._open_epoch(epoch)

    def _find_group(self, epoch: _Epoch, index: int) -> tuple[int, int, int]:
        """Return the group of a window of an epoch, and the windows before it and up to its end."""
        place = int(np.searchsorted(epoch.ends, index, side="right"))
        first = place - place % GROUP_BLOCKS
        last = min(first + GROUP_BLOCKS, len(epoch.ends)) - 1
        return (
            first // GROUP_BLOCKS,
            int(epoch.ends[first - 1]) if first else 0,
            int(epoch.ends[last]),
        )

    def _make_epoch(self, epoch: int) -> _Epoch:
        key = hashlib.sha256(f"{self._seed}:{epoch}".encode()).digest()
        blocks = permute_range(0, len(self._lengths), len(self._lengths), key[8:]).astype(np.int64)
        windows = self._windows[blocks]
        slack = np.maximum(0, self._lengths[blocks] - 1 - windows * self._context_length)
        offsets = int.from_bytes(key[:7], "big") % (slack + 1)
        return _Epoch(blocks, np.cumsum(windows), offsets, key)
