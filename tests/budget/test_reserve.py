import pytest

from lightlm.budget.reserve import (
    FIRST_CLOSING_SECONDS,
    FIRST_SCORING_MARGIN,
    MOST_SPREAD,
    REMEMBERED,
    TOLERANCE_FRACTION,
    TOLERANCE_SECONDS,
    Closing,
    ClosingTimes,
)


def test_without_history_the_first_guess_holds(tmp_path):
    assert ClosingTimes(tmp_path).estimate(72.0) == Closing(FIRST_CLOSING_SECONDS, FIRST_SCORING_MARGIN)


def test_the_estimate_lets_one_run_in_twenty_be_as_late_as_is_tolerated(tmp_path):
    times = ClosingTimes(tmp_path)
    for seconds in range(1, 11):
        times.record(float(seconds))
    assert times.read() == [float(seconds) for seconds in range(1, 11)]
    assert times.estimate(72.0).seconds == 10 - TOLERANCE_SECONDS
    assert times.estimate(600.0).seconds == 10 - TOLERANCE_FRACTION * 600
    assert times.estimate(36_000.0).seconds == 5  # the median: half of all runs would be late below it


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
