"""Tests of what is told later: pending runs, their ends, and registrations that come after newer
ones.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lightlm.errors import TrackingError
from lightlm.tracking.catalog import resolve
from lightlm.tracking.recorder import Recorder
from lightlm.tracking.registry import open_client
from lightlm.tracking.shipped import read_shipped
from lightlm.tracking.shipper import END_TAG
from lightlm.tracking.sync import list_pending, sync
from lightlm_flows.cli.commands.sync import sync as tell_all


def test_all_that_is_pending_is_told_once_and_the_dead_get_an_end_with_a_reason(
    home: Path, recorded: Callable[..., Path]
) -> None:
    died = recorded("run-1", steps=3, is_finished=False)
    finished = recorded("run-2", steps=3)
    living = recorded("run-3", steps=3, is_finished=False)
    recorder = Recorder(living)
    told = sync(home)
    assert [(one.folder, one.outcome) for one in told] == [
        (died, "told"),
        (finished, "told"),
        (living, "busy"),
    ]

    assert [one.version for one in told] == [None, "models:/lightlm/1", None]
    client = open_client(home)
    run = client.get_run(read_shipped(died).run_id)
    assert run.info.status == "KILLED"
    assert "ended without a word" in run.data.tags[END_TAG]
    assert client.get_run(read_shipped(finished).run_id).info.status == "FINISHED"
    recorder.close()
    assert [(one.folder, one.outcome) for one in sync(home)] == [(living, "told")]
    assert sync(home) == []


def test_a_run_that_was_ended_and_then_recorded_more_is_pending_again(
    home: Path, recorded: Callable[..., Path]
) -> None:
    folder = recorded("run-1", steps=3, is_finished=False)
    sync(home)
    recorder = Recorder(folder)
    recorder.log_metrics({"train/loss": 1.0}, 4)
    recorder.close()
    assert list(list_pending(home)) == [folder]
    assert sync(home)[0].num_records == 1


def test_a_registration_that_is_told_late_takes_no_alias_from_a_newer_version(
    home: Path, recorded: Callable[..., Path]
) -> None:
    late = recorded("run-1", steps=1, promote="always")
    recorded("run-2", steps=1, promote="always")
    hidden = late.rename(home / "late")
    sync(home)
    hidden.rename(late)
    sync(home)
    newest = resolve(home, "models:/lightlm@champion")
    assert (newest.version, newest.aliases) == ("1", ("challenger", "champion"))
    second = resolve(home, "models:/lightlm/2")
    assert second.aliases == ()
    assert (
        "version 1 stays champion: it is newer than version 2" in second.tags["lightlm.promotion"]
    )


def test_a_server_that_is_away_is_said_and_everything_stays_pending(
    home: Path, recorded: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = recorded("run-1", steps=1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://alice:sesame42@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match=r"http://\[hidden\]@127.0.0.1:9 cannot be reached"):
        sync(home)
    assert os.environ["MLFLOW_TRACKING_URI"].endswith(":9")
    assert list(list_pending(home)) == [folder]


def test_the_command_says_what_it_told_and_none_of_what_mlflow_prints(
    home: Path,
    recorded: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    recorded("run-1", steps=2)
    monkeypatch.setattr(
        os, "environ", dict(os.environ) | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    )
    tell_all()
    out, err = capfd.readouterr()
    assert out == ""
    assert [line.partition(":")[0] for line in err.splitlines()] == [
        "run-1",
        "run-1",
        "Prefect was not asked",
    ]

    assert "told; 9 records; models:/lightlm/1" in err
