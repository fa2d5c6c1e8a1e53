import pytest

from lightlm.budget.ledger import Ledger
from lightlm.budget.patience import (
    EXIT_SECONDS,
    HEALTHY_REQUEST_SECONDS,
    LEAST_EXIT_SECONDS,
    LEAST_REQUEST_SECONDS,
    REQUEST_SECONDS,
    SHORT_REQUEST_SECONDS,
    Patience,
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_without_a_run_a_request_has_the_usual_seconds() -> None:
    patience = Patience(Clock())
    assert patience.request_seconds() == REQUEST_SECONDS
    assert patience.exit_seconds() == EXIT_SECONDS


def test_near_the_deadline_a_request_has_what_the_promise_leaves_and_then_hardly_anything() -> None:
    clock = Clock()
    patience = Patience(clock)
    patience.follow(Ledger(0.1, started_at=100.0, clock=clock))
    assert patience.request_seconds() == REQUEST_SECONDS
    clock.now = 459.0  # a second before the end; 3.6 s are promised
    assert 1.0 < patience.request_seconds() < 1.0 + 3.6
    clock.now = 460.0 + 0.9 * 3.6
    assert patience.request_seconds() == HEALTHY_REQUEST_SECONDS
    clock.now = 460.0 + 1.2 * 3.6
    assert patience.exit_seconds() == pytest.approx(LEAST_EXIT_SECONDS + 0.25 * 0.2 * 3.6)


def test_a_short_run_does_not_give_one_request_most_of_its_time() -> None:
    clock = Clock()
    patience = Patience(clock)
    patience.follow(Ledger(0.004, started_at=100.0, clock=clock))
    assert patience.request_seconds() == SHORT_REQUEST_SECONDS


def test_after_a_time_out_a_request_has_hardly_anything_until_one_is_answered() -> None:
    patience = Patience(Clock())
    patience.note(is_answered=False)
    assert patience.request_seconds() == LEAST_REQUEST_SECONDS
    patience.note(is_answered=True)
    assert patience.request_seconds() == REQUEST_SECONDS
