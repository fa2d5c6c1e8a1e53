"""Tests of the loader: its order is a pure function of (seed, step), whatever the threads and
ranks.
"""

import itertools
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlm.data.loader import (
    ThreadedDataLoader,
    count_windows,
    mixed_starts,
    window_starts,
)
from lightlm.data.shards import MixedTokens
from lightlm.data.token_array import TokenArray
from lightlm.errors import DatasetError

TOKENS = np.arange(5000, dtype=np.uint16)


def take(count: int, **values: object) -> list[torch.Tensor]:
    settings_ = {"context_length": 16, "batch_size": 4, "seed": 1} | values
    with ThreadedDataLoader(TOKENS, **settings_) as loader:
        return [next(loader).inputs for _ in range(count)]


@given(num_tokens=st.integers(40, 5000), seed=st.integers(0, 99), first=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_starts_found_together_are_those_found_alone(
    num_tokens: int, seed: int, first: int
) -> None:
    values = {"num_tokens": num_tokens, "context_length": 16, "seed": seed}
    wanted = [int(window_starts(first + index, 1, **values)[0]) for index in range(100)]
    assert window_starts(first, 100, **values).tolist() == wanted


@given(num_tokens=st.integers(40, 2000), context=st.integers(2, 20), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_an_epoch_reads_side_by_side_windows_each_once(
    num_tokens: int, context: int, seed: int
) -> None:
    count = count_windows(num_tokens, context)
    for epoch in (0, 1, 5):
        found = window_starts(
            epoch * count, count, num_tokens=num_tokens, context_length=context, seed=seed
        )
        starts = sorted(found.tolist())
        assert starts[0] >= 0
        assert starts[-1] + context + 1 <= num_tokens
        assert all(b - a == context for a, b in itertools.pairwise(starts))


def test_targets_are_the_tokens_after_the_inputs() -> None:
    with ThreadedDataLoader(TOKENS, context_length=16, batch_size=4, seed=0) as loader:
        batch = next(loader)
    assert batch.inputs.shape == batch.targets.shape == (4, 16)
    assert torch.equal(batch.widen().inputs + 1, batch.widen().targets)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_ids_stay_as_narrow_as_on_disk_until_they_are_widened(dtype: type) -> None:
    ids = np.arange(5000, dtype=dtype) + (60_000 if dtype is np.uint16 else 4_000_000_000)
    with ThreadedDataLoader(ids, context_length=16, batch_size=4, seed=0) as loader:
        batch = next(loader)
    assert batch.inputs.element_size() == batch.targets.element_size() == ids.itemsize
    wide = batch.widen()
    assert wide.inputs.dtype == wide.targets.dtype == torch.int64
    assert wide.inputs.min() >= ids[0]
    assert torch.equal(wide.inputs[:, 1:], wide.targets[:, :-1])
    assert torch.equal(wide.rows(1, 3).inputs, batch.rows(1, 3).widen().inputs)


@pytest.mark.parametrize("num_threads", [1, 2, 5])
@pytest.mark.parametrize("queue_size", [1, 2, 8, 100])
def test_the_order_depends_on_neither_the_threads_nor_what_they_read_at_once(
    num_threads: int, queue_size: int
) -> None:
    found = take(150, num_threads=num_threads, queue_size=queue_size, batch_size=20)
    with ThreadedDataLoader(TOKENS, context_length=16, batch_size=20, seed=1) as loader:
        assert all(
            torch.equal(batch, loader.read_batch(step).inputs) for step, batch in enumerate(found)
        )


@pytest.mark.parametrize("batch_size", [3, 1500])
def test_a_batch_holds_the_windows_of_its_sequences(batch_size: int) -> None:
    with ThreadedDataLoader(TOKENS, context_length=16, batch_size=batch_size, seed=5) as loader:
        batch = loader.read_batch(7)
    wanted = window_starts(
        7 * batch_size, batch_size, num_tokens=5000, context_length=16, seed=5
    ).tolist()
    assert batch.inputs[:, 0].tolist() == wanted


def test_another_seed_gives_another_order() -> None:
    assert not all(torch.equal(a, b) for a, b in zip(take(3, seed=1), take(3, seed=2), strict=True))


def test_a_start_in_the_middle_goes_on_as_if_it_had_read_the_rest() -> None:
    wanted = take(20)[12:]
    assert all(torch.equal(a, b) for a, b in zip(take(8, start_step=12), wanted, strict=True))


def test_two_ranks_together_read_what_one_reads() -> None:
    whole = take(10)
    parts = [take(10, rank=rank, world_size=2) for rank in (0, 1)]
    for step in range(10):
        assert torch.equal(torch.cat([parts[0][step], parts[1][step]]), whole[step])


class Broken:
    """Tokens whose third reading fails, as a disk would."""

    def __init__(self) -> None:
        self.readings = 0

    def __len__(self) -> int:
        return 5000

    def take_windows(self, starts: np.ndarray, size: int) -> np.ndarray:
        self.readings += 1
        if self.readings > 2:
            raise OSError("the disk is gone")
        return np.stack([TOKENS[start : start + size] for start in starts])


def test_a_readers_error_reaches_the_consumer() -> None:
    with (
        ThreadedDataLoader(
            Broken(), context_length=16, batch_size=4, seed=0, num_threads=1
        ) as loader,
        pytest.raises(OSError, match="the disk is gone"),
    ):
        for _ in range(30):
            next(loader)


def test_closing_stops_every_thread_even_with_a_full_queue() -> None:
    before = threading.active_count()
    loader = ThreadedDataLoader(
        TOKENS, context_length=16, batch_size=4, seed=0, queue_size=2, num_threads=3
    )
    next(loader)
    loader.close()
    loader.close()
    assert threading.active_count() == before
    with pytest.raises(StopIteration):
        for _ in range(20):
            next(loader)


def test_the_queue_is_bounded() -> None:
    with ThreadedDataLoader(
        TOKENS, context_length=16, batch_size=4, seed=0, queue_size=3
    ) as loader:
        next(loader)
        threading.Event().wait(0.2)
        assert len(loader._ready) <= 3


def test_too_little_text_is_refused_with_the_context_that_would_fit() -> None:
    with pytest.raises(DatasetError, match=r"10 tokens, a sequence needs 17; .* at most 9$"):
        ThreadedDataLoader(TOKENS[:10], context_length=16, batch_size=1, seed=0)
    with pytest.raises(DatasetError, match=r"4 tokens, a sequence needs 9; give more text$"):
        count_windows(4, 8)
    assert count_windows(17, 16) == 1


def mix(*shares: float) -> MixedTokens:
    """Return texts of 5,000 tokens, each of its own: 0 to 4,999, then 10,000 to 14,999, ..."""
    texts = [
        TokenArray.join([TOKENS + np.uint16(10_000 * text)]) for text in range(len(shares) + 1)
    ]
    return MixedTokens.mix(texts[0], list(zip(texts[1:], shares, strict=True)))


def name_texts(tokens: MixedTokens, number: int) -> np.ndarray:
    """Return which text each of the first `number` sequences is of."""
    starts = mixed_starts(0, number, tokens, context_length=16, seed=3)
    windows = tokens.take_windows(starts, 17)
    assert (np.diff(windows.astype(int), axis=1) == 1).all()
    return starts // 5000


@given(
    shares=st.lists(st.floats(0.001, 0.3), min_size=1, max_size=3),
    number=st.integers(1, 3000),
)
@settings(max_examples=40, deadline=None)
def test_texts_are_mixed_exactly_by_their_shares(shares: list[float], number: int) -> None:
    counts = np.bincount(name_texts(mix(*shares), number), minlength=len(shares) + 1)
    wanted = np.array([1 - sum(shares), *shares]) * number
    assert np.abs(counts - wanted).max() < len(shares) + 0.1


@given(first=st.integers(0, 20_000), number=st.integers(1, 300), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_the_order_of_mixed_texts_is_the_same_wherever_reading_begins(
    first: int, number: int, seed: int
) -> None:
    tokens = mix(0.3, 0.05)
    values = {"context_length": 16, "seed": seed}
    alone = [int(mixed_starts(first + index, 1, tokens, **values)[0]) for index in range(number)]
    assert mixed_starts(first, number, tokens, **values).tolist() == alone


def test_each_mixed_text_is_read_in_the_order_that_it_has_alone() -> None:
    tokens = mix(0.3, 0.05)
    starts = mixed_starts(0, 3000, tokens, context_length=16, seed=1)
    for text in range(3):
        own = starts[starts // 5000 == text] - 5000 * text
        alone = window_starts(0, len(own), num_tokens=5000, context_length=16, seed=1)
        assert own.tolist() == alone.tolist()


def test_a_loader_of_mixed_texts_resumes_and_divides_as_of_one() -> None:
    values = {"context_length": 16, "batch_size": 8, "seed": 1}
    with ThreadedDataLoader(mix(0.3), **values) as loader:
        wanted = [next(loader).inputs for _ in range(12)]
    with ThreadedDataLoader(mix(0.3), start_step=7, num_threads=3, **values) as loader:
        assert all(torch.equal(next(loader).inputs, batch) for batch in wanted[7:])
    for rank in range(2):
        with ThreadedDataLoader(mix(0.3), rank=rank, world_size=2, **values) as loader:
            part = slice(4 * rank, 4 * rank + 4)
            assert all(torch.equal(next(loader).inputs, batch[part]) for batch in wanted)
    assert {int(row[0]) >= 10_000 for batch in wanted for row in batch} == {False, True}


def test_a_mixed_text_of_too_few_tokens_is_refused_at_once() -> None:
    little = MixedTokens.mix(TokenArray.join([TOKENS]), [(TokenArray.join([TOKENS[:9]]), 0.1)])
    with pytest.raises(DatasetError, match="the text has 9 tokens"):
        ThreadedDataLoader(little, context_length=16, batch_size=8, seed=1)
