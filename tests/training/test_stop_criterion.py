import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlm.training.stop_criterion import (
    OPENING_SECONDS,
    STALL_FACTOR,
    STEPS_REMEMBERED,
    CheckpointSchedule,
    Milestones,
    ScoringTime,
    StepCriterion,
    TimeCriterion,
)


class FakeClock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def run_steps(criterion, clock, seconds):
    """Take steps as long as the criterion allows; return how many."""
    count = 0
    for one in seconds:
        if not criterion.allows(count):
            break
        clock.now += one
        criterion.record_step(one)
        count += 1
    return count


def test_progress_is_the_share_of_the_seconds_that_are_gone():
    clock = FakeClock()
    criterion = TimeCriterion(50.0, clock)
    assert criterion.progress(0) == 0.0
    clock.now += 10
    assert criterion.progress(10**6) == pytest.approx(0.2)
    clock.now += 100
    assert criterion.progress(0) == 1.0


def test_seconds_spent_before_a_restart_count():
    clock = FakeClock()
    criterion = TimeCriterion(50.0, clock, spent_seconds=40.0)
    assert criterion.progress(0) == pytest.approx(0.8)
    clock.now += 5
    assert criterion.spent_seconds == pytest.approx(45.0)


@pytest.mark.parametrize("budget", [0.0, -3.0])
def test_no_budget_is_all_spent(budget):
    assert TimeCriterion(budget, FakeClock()).progress(0) == 1.0


@settings(deadline=None)
@given(step=st.floats(0.01, 20), budget=st.floats(0.1, 100))
def test_steady_steps_end_before_the_deadline_and_leave_less_than_one_unused(step, budget):
    clock = FakeClock()
    run_steps(TimeCriterion(budget, clock), clock, [step] * 20_000)
    over = clock.now - 1000.0 - budget
    # The first step's length is not known before it is taken.
    assert over <= max(0.0, step - budget) + 1e-6
    assert over > -step - 1e-6


@settings(deadline=None)
@given(seconds=st.lists(st.floats(0.01, 5), min_size=2, max_size=300), budget=st.floats(1, 50))
def test_no_step_begins_that_would_miss_the_deadline_by_being_as_slow_as_one_before(
    seconds, budget
):
    clock = FakeClock()
    count = run_steps(TimeCriterion(budget, clock), clock, seconds)
    before = seconds[1 : count - 1] or seconds[: count - 1]  # the first judges the second
    usual = statistics.median_low(seconds[: count - 1]) if count > 1 else 0.0
    slowest_before = max((one for one in before if one <= STALL_FACTOR * usual), default=0.0)
    last = seconds[count - 1]
    if count <= 100 and last <= slowest_before:
        assert clock.now <= 1000.0 + budget + 1e-6


def test_a_first_step_that_compiled_the_model_does_not_end_training_early():
    clock = FakeClock()
    assert run_steps(TimeCriterion(60.0, clock), clock, [10.0] + [1.0] * 1000) == 51
    assert clock.now == 1060.0


def test_after_the_first_step_a_second_one_is_as_long_as_that():
    clock = FakeClock()
    assert run_steps(TimeCriterion(15.0, clock), clock, [10.0] + [1.0] * 1000) == 1


@pytest.mark.parametrize("stalled_step", [1, 2, 3, 10, 40])
def test_training_goes_on_after_one_stall_and_uses_the_time_that_is_left(stalled_step):
    clock = FakeClock()
    seconds = [0.2] * 1000
    seconds[stalled_step] = 10.0
    criterion = TimeCriterion(20.0, clock)
    run_steps(criterion, clock, seconds)
    assert clock.now == pytest.approx(1020.0, abs=0.2 + 1e-6)
    assert criterion.progress(0) >= 0.99


def test_a_stall_that_takes_all_of_the_time_ends_training():
    clock = FakeClock()
    assert run_steps(TimeCriterion(20.0, clock), clock, [0.2] * 10 + [60.0] + [0.2] * 10) == 11


def test_steps_that_are_often_slow_are_no_stalls():
    criterion = TimeCriterion(1e9, FakeClock())
    for _ in range(10):
        for seconds in [1.0, 1.0, 1.0, 9.0]:
            criterion.record_step(seconds)
    assert criterion.slow_step_seconds() == 9.0


def test_of_many_steps_the_slowest_hundredth_does_not_count():
    criterion = TimeCriterion(1e9, FakeClock())
    for index in range(STEPS_REMEMBERED):
        criterion.record_step(60.0 if index == 7 else 1.0)
    assert criterion.slow_step_seconds() == 1.0


def test_steps_long_ago_are_forgotten():
    criterion = TimeCriterion(1e9, FakeClock())
    for seconds in [9.0] * 50 + [1.0] * STEPS_REMEMBERED:
        criterion.record_step(seconds)
    assert criterion.slow_step_seconds() == 1.0


def test_a_number_of_steps_is_taken_exactly_whatever_they_last():
    criterion = StepCriterion(7)
    assert run_steps(criterion, FakeClock(), [100.0] * 50) == 7
    assert [criterion.progress(step) for step in (0, 7, 9)] == [0.0, 1.0, 1.0]


def test_each_fraction_of_the_budget_is_reached_once():
    milestones = Milestones(4, 0.0)
    reached = [index for index in range(101) if milestones.reached(index / 100)]
    assert reached == [25, 50, 75]


def test_fractions_passed_before_a_restart_or_in_one_leap_do_not_come_again():
    assert not Milestones(4, 0.6).reached(0.7)
    assert Milestones(4, 0.6).reached(0.75)
    milestones = Milestones(4, 0.0)
    assert milestones.reached(0.6)
    assert not milestones.reached(0.7)


def test_a_tenth_of_the_budget_is_saved_at_whatever_the_number_of_checkpoints():
    clock = FakeClock()
    saving = CheckpointSchedule(4, 0.0, clock)
    assert [index for index in range(101) if saving.is_due(index / 100)] == [10, 25, 50, 75]


def test_between_the_fractions_saving_takes_half_a_percent_of_the_time():
    clock = FakeClock()
    saving = CheckpointSchedule(1, 0.0, clock)
    assert saving.is_due(0.1)
    saving.record(seconds=0.5)
    clock.now += 99.0
    assert not saving.is_due(0.2)
    clock.now += 1.0
    assert saving.is_due(0.2)
    saving.record(seconds=0.001)  # a quick one is not repeated at once
    clock.now += 4.0
    assert not saving.is_due(0.2)
    clock.now += 1.0
    assert saving.is_due(0.2)


def test_a_fraction_is_passed_over_where_saving_takes_more_than_a_twentieth_of_the_time() -> None:
    clock = FakeClock()
    saving = CheckpointSchedule(4, 0.0, clock)
    assert saving.is_due(0.1)
    saving.record(seconds=1.0)
    clock.now += 19.0
    assert not saving.is_due(0.25)
    clock.now += 1.0
    assert saving.is_due(0.5)


def test_validations_tell_how_long_the_final_score_takes_and_the_end_of_training_moves() -> None:
    scoring = ScoringTime(100_000, expected_seconds=10.0)
    criterion = TimeCriterion(100.0, lambda: 0.0)
    for seconds in (0.2, 0.21, 0.9):  # a tenth of the text each; one beside a busy neighbor
        criterion.extend(-scoring.record(10_000, seconds, criterion.budget_seconds))
    assert scoring.seconds == pytest.approx(OPENING_SECONDS + 2.1)
    assert criterion.budget_seconds == pytest.approx(100 + 10 - 2.1 - OPENING_SECONDS)


def test_the_final_score_is_given_a_share_of_the_time_at_most() -> None:
    scoring = ScoringTime(100_000, expected_seconds=1.0)
    assert scoring.record(10_000, 60.0, training_seconds=100.0) == pytest.approx(14.0)
    assert ScoringTime(0, 1.0).record(10_000, 60.0, 100.0) == 0.0
