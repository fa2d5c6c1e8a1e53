"""What is added to a run that has ended: once in MLflow, and kept where MLflow is away."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lightlm.errors import TrackingError
from lightlm.store.commit import write_file
from lightlm.tracking.record import Metrics, Table, is_finished
from lightlm.tracking.registry import open_client
from lightlm.tracking.reports import add_records, find_run_folder
from lightlm.tracking.shipped import STATE, read_shipped
from lightlm.tracking.sync import sync

METRICS = Metrics(step=0, values={"tasks/blimp/acc": 0.75})
TABLE = Table(path="tasks/1.json", columns={"task": ["blimp", "lambada"], "value": [0.75, 0.5]})


def read_rows(home: Path, run_id: str) -> list[list[object]]:
    client = open_client(home)
    experiment = client.get_run(run_id).info.experiment_id
    return client.load_table(experiment, TABLE.path, run_ids=[run_id]).to_numpy().tolist()


def test_scores_of_a_run_of_this_home_are_in_its_record_and_once_in_mlflow(
    home: Path, recorded: Callable[..., Path]
) -> None:
    folder = recorded("run-1", steps=3)
    sync(home)
    run_id = read_shipped(folder).run_id
    assert run_id is not None
    assert find_run_folder(home, run_id) == folder
    assert add_records(home, run_id, METRICS, TABLE)
    assert read_rows(home, run_id) == [["blimp", 0.75], ["lambada", 0.5]]
    run = open_client(home).get_run(run_id)
    assert run.data.metrics["tasks/blimp/acc"] == 0.75
    assert run.info.status == "FINISHED"
    assert is_finished(folder)
    write_file(folder / STATE, b"damaged")  # all is sent again
    sync(home)
    assert len(read_rows(home, run_id)) == 2


def test_scores_wait_in_the_record_while_mlflow_is_away(
    home: Path, recorded: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = recorded("run-1", steps=3)
    sync(home)
    run_id = read_shipped(folder).run_id or ""
    with monkeypatch.context() as away:
        away.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        away.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        assert not add_records(home, run_id, METRICS, TABLE)
        with pytest.raises(TrackingError, match="cannot be reached"):
            add_records(home, "0123456789abcdef", METRICS, TABLE)
    assert [(one.outcome, one.num_records) for one in sync(home)] == [("told", 2)]
    assert len(read_rows(home, run_id)) == 2


def test_scores_of_a_run_that_is_not_here_go_to_mlflow_alone(
    home: Path, recorded: Callable[..., Path]
) -> None:
    folder = recorded("run-1", steps=3)
    sync(home)
    run_id = read_shipped(folder).run_id or ""
    folder.rename(home / "elsewhere")
    assert find_run_folder(home, run_id) is None
    assert add_records(home, run_id, METRICS, TABLE)
    assert len(read_rows(home, run_id)) == 2
