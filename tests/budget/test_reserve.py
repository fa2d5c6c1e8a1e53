import pytest

from lightlm.budget.reserve import FIRST_CLOSING_SECONDS, REMEMBERED, ClosingTimes


def test_without_history_the_first_guess_holds(tmp_path):
    assert ClosingTimes(tmp_path).estimate() == FIRST_CLOSING_SECONDS


def test_the_estimate_is_above_nearly_all_that_was_seen(tmp_path):
    times = ClosingTimes(tmp_path)
    for seconds in range(1, 11):
        times.record(float(seconds))
    assert times.read() == [float(seconds) for seconds in range(1, 11)]
    assert times.estimate() == pytest.approx(10 * 1.1 + 0.2)


def test_old_runs_are_forgotten(tmp_path):
    times = ClosingTimes(tmp_path)
    for seconds in [100.0, *[1.0] * REMEMBERED]:
        times.record(seconds)
    assert len(times.read()) == REMEMBERED
    assert times.estimate() == pytest.approx(1.3)


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[null]", b'["a"]', b"\xff", b"{}"])
def test_a_broken_history_is_none(tmp_path, content):
    times = ClosingTimes(tmp_path)
    times.path.write_bytes(content)
    assert times.read() == []
    assert times.estimate() == FIRST_CLOSING_SECONDS
    times.record(2.0)
    assert times.read() == [2.0]


def test_a_home_that_refuses_does_not_fail_a_finished_run(tmp_path):
    (tmp_path / "elsewhere").write_text("a file where the folder should be")
    ClosingTimes(tmp_path / "elsewhere").record(2.0)
    assert ClosingTimes(tmp_path / "elsewhere").estimate() == FIRST_CLOSING_SECONDS
