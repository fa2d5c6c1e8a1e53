import pytest

from lightlm.budget.allowance import (
    EXIT,
    EXIT_SECONDS,
    HEALTHY_REQUEST_SECONDS,
    LEAST_EXIT_SECONDS,
    LEAST_REQUEST_SECONDS,
    LEAST_SECONDS,
    LEFT_FRACTION,
    MOST_SECONDS,
    ORCHESTRATION,
    RECORD,
    REGISTRATION,
    REQUEST_SECONDS,
    SHORT_REQUEST_SECONDS,
    Allowance,
    Patience,
    promise_lateness,
)
from lightlm.budget.ledger import Ledger
from lightlm.budget.reserve import SYNCS_AFTER_REGISTRATION, EndConditions


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def wait_for_all(allowance: Allowance, clock: Clock) -> float:
    """Let every wait of a run's end take all that it may; return the clock's seconds afterwards."""
    for fraction in (REGISTRATION, RECORD, ORCHESTRATION, EXIT):
        clock.now += max(0.0, allowance.seconds(fraction))
    return clock.now


@pytest.mark.parametrize(("budget", "lateness"), [(14.4, 2.0), (18, 2.0), (200, 2.0), (3600, 36.0)])
def test_the_promise_is_two_seconds_or_one_percent(budget: float, lateness: float) -> None:
    assert promise_lateness(budget) == lateness


@pytest.mark.parametrize("begins_at", [80.0, 99.0, 100.0, 101.0])
@pytest.mark.parametrize("budget", [14.4, 72.0])
def test_all_waits_together_keep_the_promise_by_the_stopwatch(
    begins_at: float, budget: float
) -> None:
    clock = Clock(begins_at)
    assert wait_for_all(Allowance(100.0, budget, clock), clock) <= 100.0 + EXIT * promise_lateness(
        budget
    )
    assert EXIT * promise_lateness(budget) < 2 * promise_lateness(budget)


def test_until_the_flow_has_ended_they_keep_the_promise_by_the_ledger() -> None:
    clock = Clock(99.0)
    allowance = Allowance(100.0, 14.4, clock)
    for fraction in (REGISTRATION, RECORD, ORCHESTRATION):
        clock.now += allowance.seconds(fraction)
    assert clock.now < 100.0 + promise_lateness(14.4)


def test_a_run_with_time_to_spare_waits_a_bounded_time_all_in_all() -> None:
    clock = Clock(0.0)
    assert wait_for_all(Allowance(3600.0, 3600.0, clock), clock) == MOST_SECONDS


def test_a_late_run_gives_a_server_that_answers_a_moment_and_another_none() -> None:
    allowance = Allowance(100.0, 14.4, Clock(102.0))
    assert allowance.seconds(REGISTRATION, least=LEAST_SECONDS) == LEAST_SECONDS
    assert allowance.seconds(REGISTRATION) == 0.0


def test_on_a_slow_machine_a_server_that_answers_gets_more() -> None:
    allowance = Allowance(100.0, 14.4, Clock(142.0))
    assert allowance.seconds(REGISTRATION, least=LEAST_SECONDS) == LEAST_SECONDS + 10.0
    assert allowance.seconds(REGISTRATION) == 0.0
    allowance.conditions = EndConditions(slowdown=3.0)
    assert allowance.seconds(REGISTRATION, least=LEAST_SECONDS) == 3 * LEAST_SECONDS + 10.0


def test_a_wait_may_be_bounded_further() -> None:
    assert Allowance(100.0, 3600.0, Clock(0.0)).seconds(RECORD, most=5.0) == 5.0


def test_what_is_left_opens_nothing() -> None:
    clock = Clock(0.0)
    allowance = Allowance(1000.0, 3600.0, clock)
    assert allowance.left(ORCHESTRATION) == 1000.0 + 0.6 * 36
    clock.now = 500.0
    assert allowance.seconds(RECORD) == MOST_SECONDS


def test_what_follows_the_waits_on_a_slow_disk_shortens_them() -> None:
    allowance = Allowance(100.0, 14.4, Clock(95.0))
    before = allowance.seconds(REGISTRATION)
    allowance.conditions = EndConditions(sync_seconds=1.5 / SYNCS_AFTER_REGISTRATION)
    assert allowance.seconds(REGISTRATION) == before - 1.5
    assert allowance.seconds(REGISTRATION, least=LEAST_SECONDS) >= LEAST_SECONDS


def test_without_a_run_a_request_has_the_usual_seconds() -> None:
    patience = Patience()
    assert patience.request_seconds() == REQUEST_SECONDS
    assert patience.exit_seconds() == EXIT_SECONDS


def test_near_the_deadline_a_request_has_what_the_promise_leaves_and_then_hardly_anything() -> None:
    clock = Clock(100.0)
    patience = Patience()
    patience.follow(Ledger(0.1, started_at=100.0, clock=clock))
    assert patience.request_seconds() == REQUEST_SECONDS
    clock.now = 450.0  # ten seconds before the end; 3.6 s are promised
    assert patience.request_seconds() == pytest.approx(LEFT_FRACTION * (10.0 + ORCHESTRATION * 3.6))
    clock.now = 459.0
    assert patience.request_seconds() == HEALTHY_REQUEST_SECONDS
    clock.now = 460.0 + 0.9 * 3.6
    assert patience.request_seconds() == HEALTHY_REQUEST_SECONDS
    clock.now = 460.0 + 1.2 * 3.6
    assert patience.exit_seconds() == pytest.approx(LEAST_EXIT_SECONDS + 0.25 * 0.2 * 3.6)


def test_while_one_request_has_no_answer_the_next_one_gets_what_it_left() -> None:
    clock = Clock(100.0)
    patience = Patience(clock)
    patience.follow(Ledger(0.1, started_at=100.0, clock=clock))
    clock.now = 460.0 + 0.6 * 3.6
    with patience.waiting():
        clock.now += 1.0
        assert patience.request_seconds() == pytest.approx(HEALTHY_REQUEST_SECONDS - 1.0)
        clock.now += 0.4
        assert patience.request_seconds() == LEAST_REQUEST_SECONDS
    assert patience.request_seconds() == HEALTHY_REQUEST_SECONDS


def test_a_short_run_does_not_give_one_request_most_of_its_time() -> None:
    clock = Clock(100.0)
    patience = Patience()
    patience.follow(Ledger(0.004, started_at=100.0, clock=clock))
    assert patience.request_seconds() == SHORT_REQUEST_SECONDS


def test_after_a_time_out_a_request_has_hardly_anything_until_one_is_answered() -> None:
    patience = Patience()
    patience.note(is_answered=False)
    assert patience.request_seconds() == LEAST_REQUEST_SECONDS
    patience.note(is_answered=True)
    assert patience.request_seconds() == REQUEST_SECONDS
