"""Tests of tokens that are still being written: the order is a function of seed and sequence, and
what is not here yet is waited for.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlm.data.growing import GrowingTokens
from lightlm.data.loader import ThreadedDataLoader
from lightlm.data.token_array import TokenArray
from lightlm.errors import DatasetError

ORDER = {"context_length": 16, "seed": 3}


def make_part(number: int, length: int) -> np.ndarray:
    return np.arange(length, dtype=np.uint16) + 1000 * number


def make_growing(
    folder: Path, lengths: list[int], find_error: Callable[[], str | None] = lambda: None
) -> GrowingTokens:
    """Return tokens whose later parts are here when their folders are."""
    parts = {str(number): make_part(number, length) for number, length in enumerate(lengths)}
    return GrowingTokens(
        TokenArray.join([parts["0"]]),
        [folder / str(number) for number in range(1, len(lengths))],
        lambda path: TokenArray.join([parts[path.name]]),
        find_error,
    )


def put_all(folder: Path, number: int) -> None:
    for index in range(1, number):
        (folder / str(index)).mkdir()


@given(lengths=st.lists(st.integers(40, 300), min_size=2, max_size=4), seed=st.integers(0, 50))
@settings(max_examples=25, deadline=None)
def test_each_epoch_reads_windows_apart_and_the_first_goes_part_by_part(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    put_all(folder, len(lengths))
    tokens = make_growing(folder, lengths)
    counts = [max(1, length // 16 - 1) for length in lengths]
    ends = np.cumsum(lengths)

    for epoch in (0, 1, 2):
        first = epoch * sum(counts)
        starts = tokens.find_starts(first, sum(counts), context_length=16, seed=seed)
        assert (np.diff(np.sort(starts)) >= 16).all()
        parts = np.searchsorted(ends, starts, side="right")
        assert (parts == np.searchsorted(ends, starts + 16, side="right")).all()
        assert np.bincount(parts).tolist() == counts
        if epoch == 0:
            assert (np.diff(parts) >= 0).all()


def test_sequences_are_the_same_wherever_reading_begins(tmp_path: Path) -> None:
    put_all(tmp_path, 3)
    whole = make_growing(tmp_path, [200, 150, 400]).find_starts(0, 120, **ORDER)
    resumed = make_growing(tmp_path, [200, 150, 400])
    for first in (0, 11, 12, 19, 45, 99):
        assert (resumed.find_starts(first, 21, **ORDER) == whole[first : first + 21]).all()


def test_training_reads_the_first_part_while_others_are_not_here(tmp_path: Path) -> None:
    lengths = [16 * 600, 16 * 800]
    loader = {"context_length": 16, "batch_size": 8, "seed": 3}
    wanted_folder = tmp_path / "all"
    wanted_folder.mkdir()
    put_all(wanted_folder, 2)
    with ThreadedDataLoader(make_growing(wanted_folder, lengths), **loader) as batches:
        wanted = [next(batches).inputs.tolist() for _ in range(150)]

    with ThreadedDataLoader(make_growing(tmp_path, lengths), **loader) as batches:
        early = [next(batches).inputs.tolist() for _ in range(40)]
        (tmp_path / "1").mkdir()
        assert early + [next(batches).inputs.tolist() for _ in range(110)] == wanted

    # A run that died at step 70 resumes there.
    with ThreadedDataLoader(make_growing(tmp_path, lengths), start_step=70, **loader) as batches:
        assert [next(batches).inputs.tolist() for _ in range(80)] == wanted[70:]


def test_a_part_that_does_not_come_is_said(tmp_path: Path) -> None:
    tokens = make_growing(tmp_path, [100, 100], lambda: "the disk is full")
    with pytest.raises(DatasetError, match="was not tokenized: the disk is full"):
        tokens.find_starts(20, 1, **ORDER)


def test_the_end_of_training_waits_for_no_part(tmp_path: Path) -> None:
    tokens = make_growing(tmp_path, [100, 100])
    errors: list[Exception] = []

    def read() -> None:
        try:
            tokens.find_starts(20, 1, **ORDER)
        except DatasetError as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.05)
    tokens.close()
    reader.join()
    assert "training ended" in str(errors[0])
