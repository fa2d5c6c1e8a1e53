"""Tests of shipping a run's record to MLflow: all of it, once, whatever happens to the process."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightlm.store.commit import write_file
from lightlm.tracking.outbox import Outbox
from lightlm.tracking.registry import open_client
from lightlm.tracking.shipper import RUN_KEY_TAG, STATE


def ship(folder: Path) -> Any:
    outbox = Outbox.start(folder)
    return outbox.close(60)


def find_run(home: Path, key: str) -> Any:
    client = open_client(home)
    experiment = client.get_experiment_by_name("lightlm")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], f"tags.`{RUN_KEY_TAG}` = '{key}'")
    assert len(runs) == 1
    return runs[0]


def steps_of(home: Path, run_id: str, name: str) -> list[int]:
    return [metric.step for metric in open_client(home).get_metric_history(run_id, name)]


def test_a_run_is_told_whole(home: Path, recorded: Callable[..., Path]) -> None:
    shipment = ship(recorded("run-1", steps=30))
    run, client = find_run(home, "run-1"), open_client(home)
    assert (shipment.run_id, shipment.num_unsent, shipment.error) == (run.info.run_id, 0, None)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"training.seed": "0", "plan.model.num_layers": "1"}
    assert run.data.tags["mlflow.note.content"] == "done"
    assert steps_of(home, run.info.run_id, "train/loss") == list(range(1, 31))
    assert steps_of(home, run.info.run_id, "validation/bits_per_byte") == [10, 20, 30]
    dataset = run.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("stories", "0123abcd")
    artifacts = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert {"plan.json", "loss.png"} <= artifacts
    picture = next((home / "mlartifacts").rglob("loss.png")).read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert not (Path.cwd() / "mlruns").exists()


def test_telling_it_again_changes_nothing(home: Path, recorded: Callable[..., Path]) -> None:
    folder = recorded("run-1", steps=12)
    ship(folder)
    run_id = find_run(home, "run-1").info.run_id
    write_file(folder / STATE, b'{"cursor": 0, "run_id": null, "version": null, "is_finished": false}')
    ship(folder)
    assert find_run(home, "run-1").info.run_id == run_id
    assert steps_of(home, run_id, "train/loss") == list(range(1, 13))
    assert len(open_client(home).search_model_versions("name='lightlm'")) == 1


@pytest.mark.parametrize("seconds", [0.4, 1.6, 2.6, 3.2])
def test_a_killed_outbox_is_made_up_for_by_the_next(home: Path, recorded: Callable[..., Path], seconds: float) -> None:
    folder = recorded("run-1", steps=200)
    outbox = Outbox.start(folder)
    time.sleep(seconds)
    os.kill(outbox._process.pid, signal.SIGKILL)
    outbox.close(5)
    shipment = ship(folder)
    assert shipment.num_unsent == 0
    run = find_run(home, "run-1")
    assert steps_of(home, run.info.run_id, "train/loss") == list(range(1, 201))
    assert len(open_client(home).search_model_versions("name='lightlm'")) == 1
    assert run.info.status == "FINISHED"


def test_a_run_that_died_is_ended_and_sent_by_the_next_run(home: Path, recorded: Callable[..., Path]) -> None:
    recorded("run-1", steps=5, is_finished=False)
    folder = recorded("run-2", steps=3, is_finished=False)
    outbox = Outbox.start(folder)
    deadline = time.monotonic() + 60
    state = home / "runs" / "run-1" / STATE
    while not (state.exists() and b'"is_finished": true' in state.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    outbox.close(30)
    died = find_run(home, "run-1")
    assert died.info.status == "KILLED"
    assert steps_of(home, died.info.run_id, "train/loss") == [1, 2, 3, 4, 5]
    assert find_run(home, "run-2").info.status == "KILLED", "its parent left without an end"


def test_an_earlier_runs_version_is_not_taken_for_this_ones(home: Path, recorded: Callable[..., Path]) -> None:
    recorded("run-1", steps=3)
    folder = recorded("run-2", steps=3, is_finished=False)
    outbox = Outbox.start(folder)
    assert outbox.wait_for_version(8) is None
    outbox.close(30)
    assert len(open_client(home).search_model_versions("name='lightlm'")) == 1


def test_a_server_that_is_not_there_costs_a_bounded_time_and_is_said(
    recorded: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    shipment = ship(recorded("run-1", steps=3))
    assert shipment.num_unsent > 0
    assert shipment.error
