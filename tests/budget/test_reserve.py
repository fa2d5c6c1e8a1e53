import pytest

from lightlm.budget.reserve import (
    FIRST_CLOSING_SECONDS,
    FIRST_FIXED_SECONDS,
    FIRST_SCORING_MARGIN,
    LEAST_RUNS,
    MOST_SPREAD,
    REMEMBERED,
    SYNCS_AFTER_TRAINING,
    TOLERANCE_FRACTION,
    TOLERANCE_SECONDS,
    Closing,
    ClosingTimes,
    EndConditions,
    FixedTimes,
)
from lightlm.errors import ParameterError


def test_without_history_the_first_guess_holds(tmp_path):
    assert ClosingTimes(tmp_path).estimate(72.0) == Closing(
        FIRST_CLOSING_SECONDS, FIRST_SCORING_MARGIN
    )


def test_the_estimate_lets_one_run_in_twenty_be_as_late_as_is_tolerated(tmp_path):
    times = ClosingTimes(tmp_path)
    for seconds in range(1, 11):
        times.record(float(seconds))
    assert times.read() == [float(seconds) for seconds in range(1, 11)]
    assert times.estimate(72.0).seconds == 10 - TOLERANCE_SECONDS
    assert times.estimate(600.0).seconds == 10 - TOLERANCE_FRACTION * 600
    # the median: half of all runs would be late below it
    assert times.estimate(36_000.0).seconds == 5


def test_one_run_on_a_busy_machine_is_no_rule(tmp_path):
    times = ClosingTimes(tmp_path)
    times.record(13.4)
    assert times.estimate(36.0).seconds == MOST_SPREAD * FIRST_CLOSING_SECONDS - TOLERANCE_SECONDS


def test_old_runs_are_forgotten(tmp_path):
    times = ClosingTimes(tmp_path)
    for seconds in [100.0, *[1.0] * REMEMBERED]:
        times.record(seconds)
    assert len(times.read()) == REMEMBERED
    assert times.estimate(72.0).seconds == 1.0  # with the first guess


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[null]", b'["a"]', b"\xff", b"{}"])
def test_a_broken_history_is_none(tmp_path, content):
    times = ClosingTimes(tmp_path)
    times.path.write_bytes(content)
    assert times.read() == []
    assert times.estimate(72.0).seconds == FIRST_CLOSING_SECONDS
    times.record(2.0)
    assert times.read() == [2.0]


def test_a_home_that_refuses_does_not_fail_a_finished_run(tmp_path):
    (tmp_path / "elsewhere").write_text("a file where the folder should be")
    ClosingTimes(tmp_path / "elsewhere").record(2.0)
    assert ClosingTimes(tmp_path / "elsewhere").estimate(72.0).seconds == FIRST_CLOSING_SECONDS


@pytest.mark.parametrize("content", ["[NaN]", "[1e400]", "[-1, -2]", "[" * 20_000, '{"a": 1}', "x"])
def test_a_damaged_file_is_no_history(tmp_path, content):
    ClosingTimes(tmp_path).path.write_text(content)
    assert ClosingTimes(tmp_path).estimate(72.0) == Closing(
        FIRST_CLOSING_SECONDS, FIRST_SCORING_MARGIN
    )


def test_a_budget_that_nothing_keeps_is_refused_with_the_hours_that_work(tmp_path):
    times = FixedTimes(tmp_path)
    with pytest.raises(
        ParameterError, match=r"alone take at least 4 s here; give --hours 0\.005 or more"
    ):
        times.check(0.00001)
    times.check(FIRST_FIXED_SECONDS / 3600)


def test_the_smallest_hours_are_what_runs_in_this_home_took(tmp_path):
    times = FixedTimes(tmp_path)
    for seconds in [9.0, 8.0, 30.0]:
        times.record_ledger({"start-up": seconds - 1, "end": 1.0, "training": 1000.0})
    assert times.find_least() == 8.0
    with pytest.raises(ParameterError, match=r"at least 8 s here; give --hours 0\.004 or more"):
        times.check(0.002)
    times.check(0.0025)


def test_few_runs_do_not_raise_what_is_refused(tmp_path):
    times = FixedTimes(tmp_path)
    for _ in range(LEAST_RUNS - 1):
        times.record(500.0)
    assert times.find_least() == FIRST_FIXED_SECONDS


def test_runs_beside_busy_neighbors_do_not_refuse_what_the_machine_alone_can_do(tmp_path):
    times = FixedTimes(tmp_path)
    for _ in range(5):
        times.record(28.0)
    times.check(0.003)


def test_a_slow_disk_gets_the_time_of_the_writes_that_follow_training():
    slow = EndConditions(sync_seconds=0.15)
    assert EndConditions(sync_seconds=0.001).reserve(Closing(1.3)) == Closing(1.3)
    assert slow.reserve(Closing(1.3, 1.15)) == Closing(
        FIRST_CLOSING_SECONDS + SYNCS_AFTER_TRAINING * 0.15, 1.15
    )
    assert slow.reserve(Closing(30.0)).seconds == 30.0, "earlier ends on this disk took longer"


def test_neighbors_stretch_the_time_of_the_end_and_not_the_margin_of_scoring():
    assert EndConditions(slowdown=2.0).reserve(Closing(1.3, 1.15)) == Closing(2.6, 1.15)
