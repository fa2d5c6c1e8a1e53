"""Tests of plots as PNG: real pictures, whatever the values are."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

from lightlm.rendering.png import render_bars, render_lines, render_loss, smooth
from lightlm.rendering.svg import Line


def find_blue_rows(picture: np.ndarray) -> tuple[float, float]:
    """Return the mean row of blue pixels in the left and in the right part of the plot's inside."""
    height, width, _ = picture.shape
    inside = picture[int(0.12 * height) : int(0.85 * height), int(0.12 * width) : int(0.92 * width)]
    blue = (inside[..., 2] > 0.6) & (inside[..., 0] < 0.5)
    rows, columns = np.nonzero(blue)
    left, right = np.quantile(columns, [0.2, 0.8])
    return float(rows[columns <= left].mean()), float(rows[columns >= right].mean())


@pytest.mark.parametrize(
    "losses", [[5.0, 1.0], [5.0, 4.0, 3.0, 2.0, 1.0], [9.0 / step for step in range(1, 400)]]
)
def test_a_falling_loss_falls_in_the_picture(tmp_path: Path, losses: list[float]) -> None:
    path = tmp_path / "loss.png"
    render_loss(path, list(enumerate(losses)), [(0.0, 2.0), (1.0, 1.5)], "title", 1.5)
    picture = image.imread(path)
    assert picture.shape[0] > 400
    first, last = find_blue_rows(picture)
    assert first < last, "rows count from the top"


@pytest.mark.parametrize("losses", [[], [2.5], [2.5] * 50])
def test_few_or_equal_losses_are_drawn_too(tmp_path: Path, losses: list[float]) -> None:
    path = tmp_path / "loss.png"
    render_loss(path, list(enumerate(losses)), [], "a $ title_with ^marks", None)
    assert image.imread(path).std() > 0.01


def test_smoothing_keeps_a_constant_and_the_length() -> None:
    assert smooth([2.0] * 90) == [2.0] * 90
    assert smooth([1.0]) == [1.0]


def test_lines_and_bars_are_pictures(tmp_path: Path) -> None:
    lines = [Line("predicted", [], "gray"), Line("held out", [(0.5, 2.0), (1.0, 1.5)], "#d9480f")]
    render_lines(tmp_path / "lines.png", lines, "time", "bits per byte")
    render_bars(tmp_path / "bars.png", {"gzip": 3.0, "this model": 1.5}, "bits", "this model")
    for name in ("lines.png", "bars.png"):
        assert image.imread(tmp_path / name).std() > 0.01
