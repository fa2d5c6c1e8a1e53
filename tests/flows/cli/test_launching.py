import os
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from lightlm.errors import TrainingError
from lightlm.params import load_params
from lightlm.runs.folder import claim_run
from lightlm.runs.launch import Launch
from lightlm.runs.naming import name_run
from lightlm_flows.cli.launching import (
    ALWAYS,
    had_run_lately,
    has_time_for_prefect,
    is_near_its_end,
    keep_result,
    run_flows,
    time_home_sync,
)


def lose_prefect() -> None:
    raise httpx.ConnectError("All connection attempts failed")


def test_a_failed_flow_ends_with_its_own_reason_where_prefect_cannot_be_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    launch = Launch(failure=TrainingError("memory does not hold one sequence"))
    with pytest.raises(TrainingError, match="memory does not hold one sequence"):
        keep_result(lose_prefect, launch, lambda: None)
    assert "Prefect's API went down (ConnectError" in capsys.readouterr().err


def test_what_a_flow_reached_is_returned_where_prefect_cannot_be_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert keep_result(lose_prefect, Launch(), lambda: 7) == 7
    assert "the run is complete" in capsys.readouterr().err


def test_a_signal_that_prefect_dropped_ends_the_command_before_its_flow() -> None:
    launch = Launch(is_stopping=True)
    with pytest.raises(KeyboardInterrupt), run_flows(Path(), None, launch):
        pytest.fail("the flow began")
    with pytest.raises(KeyboardInterrupt):
        keep_result(lose_prefect, launch, lambda: None)
    assert keep_result(lose_prefect, launch, lambda: 7) == 7


@pytest.mark.parametrize(
    ("budget_seconds", "slowdown", "sync_seconds", "expected"),
    [
        (18.0, 1.0, 0.001, True),  # alone
        (36.0, 1.5, 0.001, False),  # three runs on two cores
        (72.0, 1.3, 0.001, True),
        (72.0, 1.5, 0.001, False),
        (180.0, 3.0, 0.001, True),
        (72.0, 1.0, 0.15, False),
        (180.0, 1.0, 0.15, True),
    ],
)
def test_a_short_run_in_a_crowd_or_on_a_slow_disk_does_without_prefect(
    monkeypatch: pytest.MonkeyPatch,
    budget_seconds: float,
    slowdown: float,
    sync_seconds: float,
    expected: bool,
) -> None:
    monkeypatch.delenv(ALWAYS, raising=False)
    assert has_time_for_prefect(budget_seconds, slowdown, sync_seconds) is expected


def test_a_person_can_keep_prefect_in_a_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALWAYS, "always")
    assert has_time_for_prefect(18.0, 3.0, 0.001)
    monkeypatch.delenv(ALWAYS)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    assert has_time_for_prefect(18.0, 3.0, 0.001)


def test_a_person_can_keep_prefect_for_a_run_that_is_near_its_end(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ALWAYS, raising=False)
    params = load_params(hours=0.001)  # 3.6 s
    claim_run(home, name_run(params), params).close()
    with closing(claim_run(home, name_run(params), params)) as run:
        assert is_near_its_end(run)
        monkeypatch.setenv(ALWAYS, "always")
        assert not is_near_its_end(run)


def test_a_home_that_is_not_there_yet_has_no_slow_disk(tmp_path: Path) -> None:
    assert time_home_sync(tmp_path / "none") == 0.0
    assert 0.0 < time_home_sync(tmp_path) < 60.0


def test_a_run_of_the_last_minutes_may_be_one_that_died(home: Path) -> None:
    assert not had_run_lately(home)
    params = load_params(hours=0.1)
    claim_run(home, name_run(params), params).close()
    assert had_run_lately(home)
    [journal] = (home / "runs").glob("*/budget.journal")
    os.utime(journal, (1.0, 1.0))
    assert not had_run_lately(home)
