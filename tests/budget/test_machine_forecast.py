import pytest

from lightlm.budget.machine_forecast import HERE, compare_machines, widen
from lightlm.budget.planner import plan
from lightlm.budget.ranking import TimeLeft
from lightlm.budget.reserve import Closing
from lightlm.params import load_params


@pytest.fixture
def plan_with(text):
    endless = text.extended(10**12)

    def make(figures, hours):
        left = TimeLeft(3600 * hours - 10, Closing(2.0))
        return plan(load_params(hours=hours), endless, figures, left)

    return make


def test_faster_machines_and_longer_budgets_are_forecast_to_reach_more(plan_with, probe):
    found = compare_machines(["h100", "t4"], plan_with, probe)
    assert [entry.machine for entry in found] == [HERE] * 3 + ["h100"] * 3 + ["t4"] * 3
    assert [entry.is_measured for entry in found] == [True] * 3 + [False] * 6
    bits = [entry.bits_per_byte for entry in found]
    for start in (0, 3, 6):
        assert bits[start] > bits[start + 1] > bits[start + 2]
    assert bits[3] < bits[6] < bits[0]


def test_what_is_not_measured_has_a_wider_interval(plan_with, probe):
    found = compare_machines(["cpu-2"], plan_with, probe)
    widths = [(entry.high - entry.low) / entry.bits_per_byte for entry in found]
    assert widths[3] > widths[0]
    assert widths[3] < widths[4] < widths[5]  # and it grows with the distance


def test_a_doubt_about_the_speed_widens_both_ends_and_keeps_the_middle(make_plan):
    made = make_plan()
    wide = widen(made, 0.4)
    assert wide.predicted_low < made.predicted_low
    assert wide.predicted_high > made.predicted_high
    assert wide.predicted_bits_per_byte == made.predicted_bits_per_byte
    assert widen(made, 0.0) == made
