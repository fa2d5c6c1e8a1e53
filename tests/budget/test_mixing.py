"""How much is counted, and what a plan with count tables foresees."""

import pytest

from lightlm.budget.mixing import (
    add_counts,
    choose_counted_bytes,
    choose_most_tokens,
    find_hours,
    find_last_hours,
    predict_together,
    reserve_mixing,
)
from lightlm.budget.plan import CountsPlan, Plan
from lightlm.budget.planner import plan as make_plan
from lightlm.budget.ranking import TimeLeft
from lightlm.budget.reserve import Closing
from lightlm.budget.scaling import estimate_needed_bytes
from lightlm.ngram.counts import MOST_TOKENS
from lightlm.params import load_params


@pytest.fixture
def plan(text, probe) -> Plan:
    return make_plan(load_params(), text, probe, TimeLeft(60.0, Closing(1.0)))


def make_counts(bits: float) -> CountsPlan:
    return CountsPlan(fingerprint="0" * 16, num_tokens=3_000_000, counting_bits_per_byte=bits)


def test_counting_takes_a_share_of_the_time_that_is_left() -> None:
    assert choose_most_tokens(3_000_000, seconds=60.0) == MOST_TOKENS
    assert choose_most_tokens(3_000_000, seconds=20.0) == MOST_TOKENS // 4
    assert choose_most_tokens(30_000, seconds=2.0) == MOST_TOKENS
    assert choose_most_tokens(3_000_000, seconds=0.1) == 0


def test_text_is_read_as_far_as_it_can_be_counted() -> None:
    assert choose_counted_bytes(1e5) == 4 * MOST_TOKENS
    assert choose_counted_bytes(10.0) == pytest.approx(10.0 * 0.08 * 4e6)
    assert choose_counted_bytes(-1.0) == 0

    needed = estimate_needed_bytes(1e9, 60.0)
    assert estimate_needed_bytes(1e9, 60.0, choose_counted_bytes(60.0))[0] > 2 * needed[0]
    assert estimate_needed_bytes(1e9, 60.0, choose_counted_bytes(1.0)) == needed


def test_both_together_are_better_than_the_better_one_and_never_by_much() -> None:
    assert predict_together(1.8, 1.8) == pytest.approx(1.8 - 0.0866, abs=1e-3)
    assert 1.3 < predict_together(1.35, 2.5) < 1.35
    assert predict_together(1.2, 1.5) == predict_together(1.5, 1.2)
    # As measured: novels, film reviews.
    assert predict_together(1.770, 1.792) == pytest.approx(1.695, abs=0.01)
    assert predict_together(1.729, 1.620) == pytest.approx(1.580, abs=0.01)


def test_a_plan_takes_the_tables_where_they_gain_and_keeps_its_own_prediction(plan: Plan) -> None:
    network = plan.predicted_bits_per_byte
    mixed = add_counts(plan, plan, make_counts(network), 0.02, 10_800_000)
    assert mixed.is_mixed
    assert mixed.predicted_bits_per_byte == network
    assert mixed.predictions[0] < network - 0.05
    assert mixed.predictions[1] < mixed.predictions[0] < mixed.predictions[2]
    assert "count tables; by the law they gain up to about --hours" in mixed.reasons[-1]

    alone = add_counts(plan, plan, make_counts(network + 1.0), 0.02, 10_800_000)
    assert not alone.is_mixed
    assert alone.predictions[0] == network
    assert "trained alone" in alone.reasons[-1]


def test_the_better_the_counts_the_longer_they_gain(plan: Plan) -> None:
    network = plan.predicted_bits_per_byte
    worse, better = (find_last_hours(plan, 0.02, 10_800_000, network + gap) for gap in (0.2, 0.1))
    assert worse is not None
    assert better is not None
    assert 0.02 < worse < better
    assert find_last_hours(plan, 0.02, 10_800_000, 0.2) is None


def test_time_is_kept_for_the_gate_and_for_looking_the_counts_up() -> None:
    closing = reserve_mixing(Closing(2.0), num_scored=300_000, seconds_per_token=2e-6)
    assert 3.0 < closing.seconds < 6.0
    assert closing.scoring_margin > 1.0


def test_better_scores_need_more_hours_until_none_reach_them(plan: Plan) -> None:
    reached = plan.predicted_bits_per_byte
    args = (plan, 0.02, 10_800_000, reached)
    sooner, later = (find_hours(*args, reached - gap) for gap in (0.02, 0.1))
    assert sooner is not None
    assert later is not None
    assert 0.02 < sooner < later
    assert find_hours(*args, 0.01) is None
