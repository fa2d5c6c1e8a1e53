import xml.etree.ElementTree as ElementTree

from lightlm.rendering.machines import ROW, render_machines, spread

LINES = {
    "fast & new": [(300.0, 1.0, 0.9, 1.1), (3600.0, 0.9, 0.8, 1.0)],
    "slow": [(300.0, 1.6, 1.5, 1.7), (3600.0, 1.4, 1.3, 1.5)],
}


def test_the_picture_names_every_machine_with_its_last_value_and_every_budget():
    picture = render_machines("Title <1>", LINES)
    texts = [node.text for node in ElementTree.fromstring(picture).iter() if node.text]
    for wanted in ("fast & new 0.900", "slow 1.400", "5 min", "1 h", "Title <1>"):
        assert wanted in texts


def test_a_single_budget_and_a_single_machine_can_be_drawn():
    picture = render_machines("One", {"only": [(300.0, 1.0, 1.0, 1.0)]})
    assert ElementTree.fromstring(picture).tag.endswith("svg")


def test_names_at_the_same_height_move_apart_in_order():
    moved = spread({"a": 50.0, "b": 50.5, "c": 200.0})
    assert moved["b"] - moved["a"] >= ROW
    assert moved["c"] == 200.0
