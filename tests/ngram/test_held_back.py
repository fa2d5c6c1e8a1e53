"""The text that is held back for the gate, and the text that is counted."""

import numpy as np
import pytest

from lightlm.data.token_array import TokenArray
from lightlm.ngram.held_back import (
    MOST_HELD_BACK,
    choose_counted,
    choose_stretches,
    leave_out_held_back,
    read_held_back,
)


def make_tokens(count: int) -> TokenArray:
    ids = np.arange(count, dtype="<u4")
    return TokenArray.join([ids[: count // 3], ids[count // 3 :]])


@pytest.mark.parametrize("count", [50_000, 100_003, 3_000_000])
def test_what_is_held_back_and_what_is_left_are_the_text_without_overlap(count: int) -> None:
    tokens = make_tokens(count)
    held_back = np.concatenate(read_held_back(tokens))
    left = leave_out_held_back(tokens)
    assert 0.015 * min(count, MOST_HELD_BACK / 0.02) < len(held_back) <= MOST_HELD_BACK
    assert sorted([*held_back, *left[0 : len(left)]]) == list(range(count))
    assert held_back[0] > 0.05 * count
    assert held_back[-1] < 0.95 * count


@pytest.mark.parametrize(("shortest", "longest"), [(20, 300), (500, 2_000), (3_000, 7_000)])
def test_of_short_documents_whole_ones_are_held_back(shortest: int, longest: int) -> None:
    choose = np.random.default_rng(0)
    documents = [np.arange(1, size) for size in choose.integers(shortest, longest, 100_000)]
    ids = np.concatenate([[0], *(np.append(one, 0) for one in documents[: 3_000_000 // longest])])
    tokens = TokenArray.join([ids.astype("<u4")])
    for stretch in choose_stretches(tokens):
        assert (tokens[stretch][0], tokens[stretch][-1]) == (1, 0)
        assert tokens[stretch.start - 1 : stretch.start] == 0
        assert MOST_HELD_BACK // 16 < stretch.stop - stretch.start < 2 * MOST_HELD_BACK // 8


def test_of_documents_longer_than_a_stretch_a_part_is_held_back() -> None:
    ids = np.ones(3_000_000, dtype="<u4")
    ids[::20_000] = 0
    lengths = {one.stop - one.start for one in choose_stretches(TokenArray.join([ids]))}
    assert lengths == {MOST_HELD_BACK // 8}


@pytest.mark.parametrize("tiny", [0, 1, 20])
def test_a_tiny_document_before_a_long_one_is_not_all_of_a_stretch(tiny: int) -> None:
    ids = np.ones(3_000_000, dtype="<u4")
    ids[::5_000] = 0
    ids[tiny + 1 :: 5_000] = 0
    for stretch in choose_stretches(TokenArray.join([ids])):
        assert stretch.stop - stretch.start > MOST_HELD_BACK // 16


def test_of_a_small_text_nothing_is_held_back() -> None:
    tokens = make_tokens(10_000)
    assert choose_stretches(tokens) == read_held_back(tokens) == []
    assert len(leave_out_held_back(tokens)) == len(tokens)


def test_of_a_long_text_pieces_from_its_beginning_to_its_end_are_counted() -> None:
    tokens = make_tokens(100_000)
    assert len(choose_counted(tokens, 200_000)) == 100_000
    counted = choose_counted(tokens, 6_400)
    assert len(counted) == 6_400
    assert (counted[0], counted[-1]) == (0, 99_999)
