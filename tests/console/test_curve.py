"""Curves in characters: in range, in place, told apart without colour."""

import pytest

from lightlm.console.curve import ROWS, choose_rows, find_range, interpolate, render_curves

FALLING = [(i / 100, 4.0 - 2.0 * i / 100) for i in range(3, 101)]


def draw(width: int = 80, *, is_unicode: bool = True) -> list[str]:
    """Return the lines of a falling loss, a score and a flat forecast."""
    lines = render_curves(FALLING, [(0.5, 3.0)], lambda progress: 2.0, width, is_unicode=is_unicode)
    return [line.plain for line in lines]


@pytest.mark.parametrize("width", [24, 80, 200])
@pytest.mark.parametrize("is_unicode", [True, False])
def test_the_curve_fills_its_rows_and_stays_within_its_width(width: int, is_unicode: bool) -> None:
    lines = draw(width, is_unicode=is_unicode)
    assert len(lines) == ROWS
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize(("height", "rows"), [(20, 6), (24, 6), (40, 20), (30, 12), (100, 20)])
def test_a_higher_terminal_has_a_higher_curve(height: int, rows: int) -> None:
    assert choose_rows(height) == rows
    lines = render_curves(FALLING, [], None, 80, rows, is_unicode=True)
    assert [line.plain[:5].strip() != "" for line in lines[:rows]].count(True) == 2
    axis = [line.plain for line in lines[rows:]]
    assert [line.split() for line in axis] == ([["0%", "50%", "100%"]] if rows > ROWS else [])
    assert all(len(line) <= 80 and line.endswith("100%") for line in axis)


def test_a_falling_loss_goes_from_the_upper_left_to_the_lower_right() -> None:
    lines = draw(is_unicode=False)
    columns = [line[7:].find("*") for line in lines[:-1]]
    assert columns == sorted(columns)
    assert columns[0] < 5


def test_marks_and_lines_differ_without_colour() -> None:
    shown = "".join(draw(is_unicode=False))
    assert shown.count("o") == 1
    assert "*" in shown
    assert "." in shown
    assert shown.isascii()


def test_nothing_is_drawn_before_there_is_something_to_draw() -> None:
    assert render_curves([], [], lambda progress: 2.0, 80, is_unicode=True) == []


def test_the_first_losses_do_not_press_the_rest_into_one_line() -> None:
    low, high = find_range([(0.0, 11.0), (0.1, 2.5), (0.9, 2.0)], [])
    assert high == 2.5
    assert low == pytest.approx(2.0, abs=0.05)


def test_between_two_points_lies_a_straight_line() -> None:
    assert interpolate([(0.0, 4.0), (0.4, 2.0)], 10) == [
        (0, 4.0),
        (1, 3.5),
        (2, 3.0),
        (3, 2.5),
        (4, 2.0),
    ]
    assert interpolate([], 10) == []
