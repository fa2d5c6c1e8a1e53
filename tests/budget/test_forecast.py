import pytest

from lightlm.budget.forecast import HORIZONS, forecast, judge_plans
from lightlm.budget.planner import plan
from lightlm.budget.ranking import TimeLeft
from lightlm.budget.reserve import Closing
from lightlm.params import load_params


def test_more_hours_are_expected_to_reach_less_bits_per_byte(probe, text):
    def plan_for(hours):
        left = TimeLeft(hours * 3600, Closing(2.0))
        return plan(load_params(hours=hours), text, probe, left)

    found = forecast(plan_for)
    assert [entry.name for entry in found] == [name for name, _ in HORIZONS]
    scores = [entry.bits_per_byte for entry in found]
    assert scores == sorted(scores, reverse=True)
    assert all(entry.low < entry.bits_per_byte < entry.high for entry in found)


def test_plans_are_judged_by_their_own_intervals(make_run):
    runs = [make_run(bits_per_byte=bits) for bits in (1.5, 1.59, 1.65)]
    judged = judge_plans(runs)
    assert (judged.num_runs, judged.num_as_predicted) == (3, 2)
    assert judged.mean_error == pytest.approx((0 + 0.06 + 0.10) / 3)
    assert judged.mean_absolute_error == pytest.approx(judged.mean_error)


def test_nothing_to_judge_is_no_error():
    assert judge_plans([]).num_runs == 0
