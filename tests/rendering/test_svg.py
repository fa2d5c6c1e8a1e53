"""Tests of plots as SVG: well formed, and with their names and figures."""

import xml.etree.ElementTree as Tree

import pytest

from lightlm.rendering.svg import Line, render_bars, render_comparison, render_lines
from tests.tracking.conftest import compared


def test_lines_and_bars_are_well_formed_and_name_what_they_show():
    lines = [
        Line("a <b>", [(0.0, 2.0), (1.0, 1.0)], "red", has_marks=True),
        Line("c", [(0.5, 1.5)], "blue", is_dashed=True),
    ]
    drawn = render_lines(lines, "x & y", "bits")
    Tree.fromstring(drawn)
    for told in ("a &lt;b&gt;", "x &amp; y", "bits"):
        assert told in drawn
    assert drawn.count("<circle") == 2
    assert drawn.count("stroke-dasharray") == 1


def test_without_points_nothing_is_drawn():
    assert render_lines([Line("a", [], "red")], "x", "y") == ""


def test_the_longest_bar_is_the_largest_value_and_the_chosen_one_is_marked():
    drawn = Tree.fromstring(render_bars({"small": 1.0, "large": 4.0}, "{:.1f} s".format, "small"))
    bars = {
        bar.attrib["class"]: float(bar.attrib["width"])
        for bar in drawn.iter()
        if bar.tag.endswith("rect")
    }
    assert bars["bar chosen"] * 4 == bars["bar"]


def test_equal_values_are_drawn_as_a_level_line():
    Tree.fromstring(render_lines([Line("a", [(0.0, 1.0), (1.0, 1.0)], "red")], "x", "y"))


@pytest.mark.parametrize(("old", "new", "color"), [(1.0, 0.9, "#2da44e"), (0.9, 1.0, "#8c959f")])
def test_the_comparison_is_drawn_with_its_figures_inside_its_frame(
    old: float, new: float, color: str
) -> None:
    comparison = compared("1", old, new)
    root = Tree.fromstring(render_comparison(comparison))
    texts = " ".join(root.itertext())
    assert (
        f"{comparison.difference:+.4f} ({comparison.low:+.4f} to {comparison.high:+.4f})" in texts
    )
    shapes = [one.attrib for one in root if one.tag.endswith("rect")]
    assert color in {one["fill"] for one in shapes}
    assert all(0 <= float(one.get("x", 0)) <= 720 and float(one["height"]) <= 250 for one in shapes)


def test_two_models_of_the_same_score_are_drawn_too() -> None:
    assert "+0.0000 (+0.0000 to +0.0000)" in " ".join(
        Tree.fromstring(render_comparison(compared("1", 1.0, 1.0))).itertext()
    )
