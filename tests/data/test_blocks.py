"""Tests of training tokens elsewhere: an order that is a function of seed and step, whole windows,
few bytes here, and no block that is not the one that was written.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlm.data import blocks as blocks_module
from lightlm.data.blocks import Block, BlockOrder, BlockTokens
from lightlm.data.loader import ThreadedDataLoader
from lightlm.errors import CorruptError, DatasetError, StoreError
from lightlm.store.blocks import BlockCache
from lightlm.store.remote import RemoteFolder

BLOCK_BYTES = 200
FILES = (np.arange(1234, dtype="<u2"), np.arange(1234, 2000, dtype="<u2"))


def write_blocks(folder: Path) -> list[Block]:
    """Write FILES as objects; return their blocks."""
    folder.mkdir(exist_ok=True)
    blocks = []
    for ids in FILES:
        content = ids.tobytes()
        name = hashlib.sha256(content).hexdigest()
        (folder / name).write_bytes(content)
        for start in range(0, len(content), BLOCK_BYTES):
            piece = content[start : start + BLOCK_BYTES]
            blocks.append(Block(name, start, len(piece), hashlib.sha256(piece).hexdigest()))
    return blocks


def open_tokens(
    tmp_path: Path, cache_bytes: int = 1 << 20, waits: Sequence[float] = ()
) -> BlockTokens:
    folder = tmp_path / "there"
    blocks = write_blocks(folder)
    cache = BlockCache(tmp_path / "cache", cache_bytes)
    return BlockTokens(blocks, "<u2", RemoteFolder(folder.as_uri(), waits), cache)


def test_ids_elsewhere_are_those_that_were_written(tmp_path: Path) -> None:
    tokens = open_tokens(tmp_path)
    assert len(tokens) == 2000
    assert tokens[95:1240].tolist() == list(range(95, 1240))
    starts = np.array([0, 90, 1230, 1980])
    assert tokens.take_windows(starts, 20).tolist() == [
        list(range(start, start + 20)) for start in starts
    ]
    tokens.close()


@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=300),
    context=st.integers(2, 20),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_an_epoch_has_each_window_of_each_block_once(
    lengths: list[int], context: int, seed: int
) -> None:
    windows = [(length - 1) // context for length in lengths]
    if not sum(windows):
        with pytest.raises(DatasetError, match="context_length"):
            BlockOrder(np.array(lengths), context, seed)
        return
    order = BlockOrder(np.array(lengths), context, seed)
    starts = np.sort(order.find_starts(0, order.num_windows))
    assert (np.diff(starts) >= context).all()
    edges = np.cumsum([0, *lengths])
    inside = np.searchsorted(edges, starts, side="right") - 1
    assert (starts + context < edges[inside + 1]).all()
    assert np.bincount(inside, minlength=len(lengths)).tolist() == windows


@given(first=st.integers(0, 5000), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_sequence_is_the_same_whatever_is_found_with_it(first: int, seed: int) -> None:
    lengths = np.array([100] * 150 + [34])
    wanted = BlockOrder(lengths, 8, seed).find_starts(first, 200)
    order = BlockOrder(lengths, 8, seed)
    alone = [order.find_starts(first + index, 1)[0] for index in reversed(range(200))]
    assert alone[::-1] == wanted.tolist()


def test_each_epoch_and_seed_has_an_order_of_its_own() -> None:
    orders = [BlockOrder(np.full(200, 100), 9, seed) for seed in (0, 1)]
    number = orders[0].num_windows
    epochs = [orders[0].find_starts(0, number), orders[0].find_starts(number, number)]
    epochs.append(orders[1].find_starts(0, number))
    assert all(
        np.mean(one == other) < 0.05
        for index, one in enumerate(epochs)
        for other in epochs[index + 1 :]
    )


def test_the_blocks_ahead_are_those_of_the_next_group() -> None:
    order = BlockOrder(np.full(3 * blocks_module.GROUP_BLOCKS, 101), 10, 5)
    groups = order.list_groups(0, 1)
    assert len(groups) == 2
    number = 10 * blocks_module.GROUP_BLOCKS
    for group, first in zip(groups, (0, number), strict=True):
        assert set(order.find_starts(first, number) // 101) == set(group)


def test_the_loader_reads_the_same_batches_with_any_threads_and_ranks(tmp_path: Path) -> None:
    def read(**values: int) -> list[list[list[int]]]:
        with ThreadedDataLoader(
            open_tokens(tmp_path), context_length=10, batch_size=6, seed=3, **values
        ) as loader:
            return [next(loader).inputs.tolist() for _ in range(40)]

    alone = read()
    assert read(num_threads=4) == alone
    assert read(start_step=7)[:30] == alone[7:37]
    halves = [read(rank=rank, world_size=2) for rank in (0, 1)]
    assert [first + second for first, second in zip(*halves, strict=True)] == alone


def test_no_more_is_kept_than_the_limit(tmp_path: Path) -> None:
    with ThreadedDataLoader(
        open_tokens(tmp_path, cache_bytes=1000), context_length=10, batch_size=6, seed=3
    ) as loader:
        batches = [next(loader).inputs.tolist() for _ in range(60)]
    with ThreadedDataLoader(
        open_tokens(tmp_path), context_length=10, batch_size=6, seed=3
    ) as loader:
        assert [next(loader).inputs.tolist() for _ in range(60)] == batches
    kept = BlockCache(tmp_path / "cache", 1000)
    kept.read(hashlib.sha256(b"x").hexdigest(), lambda: b"x")
    assert sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()) <= 1000


def test_a_block_that_is_another_one_ends_training_with_its_place(tmp_path: Path) -> None:
    tokens = open_tokens(tmp_path)
    path = next(path for path in (tmp_path / "there").iterdir() if path.stat().st_size > 2000)
    content = bytearray(path.read_bytes())
    content[250] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptError, match=r"bytes 200 to 400.*SHA-256"):
        tokens[0:300]
    assert tokens[0:90].tolist() == list(range(90))


def test_a_file_that_is_gone_or_short_is_told(tmp_path: Path) -> None:
    tokens = open_tokens(tmp_path)
    first, second = sorted((tmp_path / "there").iterdir(), key=lambda path: -path.stat().st_size)
    first.unlink()
    with pytest.raises(DatasetError, match="has lost"):
        tokens[0:10]
    second.write_bytes(b"")
    with pytest.raises(StoreError, match="0 bytes came instead of 200"):
        tokens[1300:1310]


def test_a_broken_block_on_the_disk_is_fetched_again(tmp_path: Path) -> None:
    open_tokens(tmp_path)[0:2000]
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(b"")
    assert open_tokens(tmp_path)[0:2000].tolist() == list(range(2000))
