"""Tests of the run's plot: a real picture, whatever the losses were."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import image

from lightlm.rendering.plots import render_comparison, render_loss, smooth
from tests.tracking.conftest import compared


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


@pytest.mark.parametrize(("old", "new", "color"), [(1.0, 0.9, "#2da44e"), (0.9, 1.0, "#8c959f")])
def test_the_comparison_is_drawn_with_its_figures_inside_its_frame(
    old: float, new: float, color: str
) -> None:
    comparison = compared("1", old, new)
    root = ElementTree.fromstring(render_comparison(comparison))
    texts = " ".join(root.itertext())
    assert (
        f"{comparison.difference:+.4f} ({comparison.low:+.4f} to {comparison.high:+.4f})" in texts
    )
    shapes = [one.attrib for one in root if one.tag.endswith("rect")]
    assert color in {one["fill"] for one in shapes}
    assert all(0 <= float(one.get("x", 0)) <= 720 and float(one["height"]) <= 250 for one in shapes)


def test_two_models_of_the_same_score_are_drawn_too() -> None:
    assert "+0.0000 (+0.0000 to +0.0000)" in " ".join(
        ElementTree.fromstring(render_comparison(compared("1", 1.0, 1.0))).itertext()
    )
