"""Tests of a split's ids over several files."""

from pathlib import Path

import numpy as np
import pytest

from lightlm.data.token_array import TokenArray


def test_wide_ids_need_four_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    np.array([1, 70_000, 3], dtype="<u4").tofile(path)
    assert TokenArray([path], "<u4")[0:3].tolist() == [1, 70_000, 3]
    with pytest.raises(ValueError, match="step"):
        TokenArray([path], "<u4")[0:3:2]


def test_windows_over_the_border_of_two_files_are_whole() -> None:
    ids = np.arange(1000, dtype="<u2")
    tokens = TokenArray.join([ids[:300], ids[300:310], ids[310:]])
    starts = np.array([0, 299, 305, 280, 310, 900])
    assert tokens.take_windows(starts, 50).tolist() == [
        list(range(start, start + 50)) for start in starts
    ]
    assert tokens.take_windows(starts[:1], 50).tolist() == [list(range(50))]


def test_what_is_left_out_leaves_the_rest_in_order() -> None:
    ids = np.arange(100, dtype="<u2")
    tokens = TokenArray.join([ids[:30], ids[30:40], ids[40:]])
    left = tokens.without([slice(5, 8), slice(25, 45), slice(98, 100)])
    wanted = [*range(5), *range(8, 25), *range(45, 98)]
    assert left[0 : len(left)].tolist() == wanted
    assert len(tokens.without([])) == 100
