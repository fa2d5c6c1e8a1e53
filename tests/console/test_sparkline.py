"""Sparklines: as wide as asked, and as high as the numbers."""

import pytest

from lightlm.console.sparkline import BLOCKS, PLAIN, render_sparkline


@pytest.mark.parametrize("num_values", [1, 2, 7, 8, 9, 1000])
def test_a_sparkline_is_as_wide_as_asked_or_as_there_are_values(num_values: int) -> None:
    drawn = render_sparkline([float(i) for i in range(num_values)], 8, is_unicode=True)
    assert len(drawn) == min(8, num_values)
    assert set(drawn) <= set(BLOCKS)


def test_a_falling_loss_falls_from_the_highest_to_the_lowest_sign() -> None:
    drawn = render_sparkline([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 8, is_unicode=False)
    heights = [PLAIN.index(sign) for sign in drawn]
    assert heights == sorted(heights, reverse=True)
    assert (heights[0], heights[-1]) == (len(PLAIN) - 1, 0)


def test_the_loss_of_a_model_that_knows_nothing_does_not_press_the_rest_flat() -> None:
    drawn = render_sparkline([1000.0, 3.0, 2.0, 1.0], 4, is_unicode=True)
    assert len(set(drawn[1:])) == 3


def test_without_values_there_is_nothing_and_equal_values_are_flat() -> None:
    assert render_sparkline([], 8, is_unicode=True) == ""
    assert render_sparkline([2.0] * 5, 8, is_unicode=True) == BLOCKS[0] * 5
