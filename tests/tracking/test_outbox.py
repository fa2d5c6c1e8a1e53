"""Tests of the process that ships a run's record: all of it, once, whatever happens to it."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib import image

from lightlm.store.home import find_home
from lightlm.tracking.outbox import OPENING_SECONDS, Outbox, Shipment
from lightlm.tracking.record import RegistrationRequest, read_records
from lightlm.tracking.recorder import Recorder
from lightlm.tracking.registry import open_client
from lightlm.tracking.shipped import STATE, read_shipped
from lightlm.tracking.shipper import RUN_KEY_TAG


def ship(folder: Path) -> Shipment:
    return Outbox.start(find_home(), folder).close(90)


def find_run(home: Path, key: str) -> Any:
    client = open_client(home)
    experiment = client.get_experiment_by_name("lightlm")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], f"tags.`{RUN_KEY_TAG}` = '{key}'")
    assert len(runs) == 1
    return runs[0]


def steps_of(home: Path, run_id: str, name: str) -> list[int]:
    return sorted(metric.step for metric in open_client(home).get_metric_history(run_id, name))


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def test_a_run_is_told_whole_to_a_database_that_was_not_there(
    home: Path, recorded: Callable[..., Path], database: Path
) -> None:
    database.unlink()
    shipment = ship(recorded("run-1", steps=30))
    run = find_run(home, "run-1")
    client = open_client(home)
    assert (shipment.run_id, shipment.num_unsent, shipment.error) == (run.info.run_id, 0, None)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"training.seed": "0", "plan.model.num_layers": "1"}
    assert run.data.tags["mlflow.note.content"] == "done"
    assert run.data.tags["mlflow.user"] == "somebody"
    assert steps_of(home, run.info.run_id, "train/loss") == list(range(1, 31))
    assert steps_of(home, run.info.run_id, "validation/bits_per_byte") == [10, 20, 30]
    (dataset,) = [one.dataset for one in run.inputs.dataset_inputs]
    assert (dataset.name, dataset.digest) == ("stories", "0123abcd")
    assert json.loads(dataset.profile) == {"num_documents": 60}
    artifacts = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert {"plan.json", "loss.png"} <= artifacts
    assert next((home / "mlartifacts").rglob("plan.json")).read_text() == '{"plan": 1}'
    picture = image.imread(next((home / "mlartifacts").rglob("loss.png")))
    assert picture.shape[0] > 300
    assert picture.std() > 0.01, "it is not blank"
    assert not (Path.cwd() / "mlruns").exists()


def test_the_version_is_told_while_the_outbox_goes_on(
    home: Path, recorded: Callable[..., Path], request_for: Callable[..., RegistrationRequest]
) -> None:
    folder = recorded("run-1", steps=3, is_finished=False)
    recorder = Recorder(folder)
    outbox = Outbox.start(home, folder)
    assert 0.0 < outbox.seconds_to_open <= OPENING_SECONDS
    recorder.register(request_for())
    version = outbox.wait_for_version(60)
    assert version is not None
    assert outbox.seconds_to_open == 0.0
    assert version.aliases == ("challenger", "champion")
    recorder.finish("FINISHED")
    recorder.close()
    shipment = outbox.close(60)
    assert (shipment.run_id, shipment.num_unsent, shipment.error) == (version.run_id, 0, None)
    assert outbox.wait_for_version(60) == version


@pytest.mark.faults
@pytest.mark.parametrize("seconds", [0.5, 1.5, 2.2, 2.9])
def test_a_killed_outbox_is_made_up_for_by_the_next(
    home: Path, recorded: Callable[..., Path], seconds: float
) -> None:
    folder = recorded("run-1", steps=1500)
    outbox = Outbox.start(home, folder)
    time.sleep(seconds)
    os.kill(outbox._process.pid, signal.SIGKILL)
    cut = outbox.close(5)
    unsent = list(read_records(folder, read_shipped(folder).cursor))
    assert cut.num_unsent == len(unsent) or cut.error is None, "it was over before it was killed"
    assert ship(folder).num_unsent == 0
    run = find_run(home, "run-1")
    assert steps_of(home, run.info.run_id, "train/loss") == list(range(1, 1501))
    assert len(open_client(home).search_model_versions("name='lightlm'")) == 1
    assert run.info.status == "FINISHED"


def test_a_dead_outbox_has_a_successor_that_tells_all(
    home: Path, recorded: Callable[..., Path]
) -> None:
    folder = recorded("run-1", steps=7)
    outbox = Outbox.start(home, folder)
    os.kill(outbox._process.pid, signal.SIGKILL)
    assert outbox.wait_for_version(60) is not None
    assert outbox.num_deaths == 1
    shipment = outbox.close(60)
    assert (shipment.num_unsent, shipment.error) == (0, None)
    assert find_run(home, "run-1").info.status == "FINISHED"


def test_what_an_earlier_run_left_is_sent_by_the_next(
    home: Path, recorded: Callable[..., Path]
) -> None:
    recorded("run-1", steps=5, is_finished=False)
    recorded("run-2", steps=4, is_finished=True)
    recorded("run-3", steps=6, is_finished=False)
    beside = Recorder(home / "runs" / "run-3")
    folder = recorded("run-4", steps=3, is_finished=False)
    recorder = Recorder(folder)
    outbox = Outbox.start(home, folder)
    for key in ("run-1", "run-2"):
        wait_until(lambda key=key: read_shipped(home / "runs" / key).is_finished)

    died = find_run(home, "run-1")
    late = find_run(home, "run-2")
    assert died.info.status == "KILLED"
    assert steps_of(home, died.info.run_id, "train/loss") == [1, 2, 3, 4, 5]
    assert late.info.status == "FINISHED"
    assert outbox.wait_for_version(0.5) is None, "an earlier run's version is not this one's"
    assert [v.run_id for v in open_client(home).search_model_versions("name='lightlm'")] == [
        late.info.run_id
    ]

    recorder.close()
    outbox.close(60)
    assert find_run(home, "run-4").info.status == "KILLED", "its parent left without an end"
    assert not (home / "runs" / "run-3" / STATE).exists(), "a run beside it ships itself"
    beside.close()


def test_a_server_that_is_not_there_costs_a_bounded_time_and_is_said(
    recorded: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://alice:sesame42@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folder = recorded("run-1", steps=3)
    shipment = Outbox.start(find_home(), folder).close(60)
    assert shipment.num_unsent == len(list(read_records(folder)))
    assert shipment.error
    assert shipment.run_id is None
    assert "sesame42" not in (folder / "outbox.log").read_text() + shipment.error


def test_the_champion_that_was_asked_for_is_told_with_its_files_in_the_cache(
    home: Path, recorded: Callable[..., Path]
) -> None:
    answers = []
    for key in ("run-1", "run-2"):
        folder = recorded(key, steps=2, is_finished=False)
        recorder = Recorder(folder)
        recorder.ask_champion(["lightlm"])
        outbox = Outbox.start(home, folder)
        answers.append(outbox.wait_for_champion(["lightlm"], 60))
        recorder.close()
        outbox.close(60)
        if key == "run-1":
            ship(recorded("registered", steps=2))

    assert (answers[0].version, answers[0].error) == (None, None), "there was none yet"
    assert answers[1].error is None
    assert answers[1].version is not None
    assert "champion" in answers[1].version.aliases
    assert (
        home / "models" / "lightlm" / answers[1].version.version / "model.safetensors"
    ).is_file()


@pytest.mark.slow
def test_a_champion_whose_files_are_damaged_is_told_with_the_reason(
    home: Path, recorded: Callable[..., Path]
) -> None:
    ship(recorded("registered", steps=2))
    (weights,) = (home / "mlartifacts").rglob("model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + bytes([weights.read_bytes()[-1] ^ 1]))
    folder = recorded("run-2", steps=2, is_finished=False)
    recorder = Recorder(folder)
    recorder.ask_champion(["lightlm"])
    outbox = Outbox.start(home, folder)
    answer = outbox.wait_for_champion(["lightlm"], 60)
    recorder.close()
    outbox.close(60)
    assert answer.version is not None
    assert "not as it was registered" in (answer.error or "")


def test_an_outbox_for_a_run_that_is_told_to_its_end_leaves_its_end_alone(
    home: Path, recorded: Callable[..., Path]
) -> None:
    folder = recorded("run-1", steps=3)
    assert ship(folder).num_unsent == 0
    assert ship(folder).num_unsent == 0
    assert find_run(home, "run-1").info.status == "FINISHED"
