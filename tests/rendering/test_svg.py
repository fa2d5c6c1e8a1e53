import xml.etree.ElementTree as Tree

from lightlm.rendering.svg import Line, render_bars, render_lines


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
