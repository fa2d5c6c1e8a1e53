"""Tests of the shipper against a real SQLite MLflow: everything once, with its own times, and
nothing stops it.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightlm.tracking.record import (
    JOURNAL,
    Metrics,
    Register,
    append_record,
    read_points,
    read_records,
)
from lightlm.tracking.recorder import Recorder
from lightlm.tracking.registry import open_client
from lightlm.tracking.shipped import STATE
from lightlm.tracking.shipper import REFUSED_TAG, Shipper, count_unsent
from lightlm.tracking.sync import list_pending


def ship(home: Path, folder: Path) -> Shipper:
    shipper = Shipper(folder, open_client(home), home)
    shipper.ship()
    return shipper


def begin(home: Path, key: str = "run-1") -> Recorder:
    recorder = Recorder(home / "runs" / key)
    recorder.start_run(key, "lightlm", {}, "", system_metrics=False)
    return recorder


def end(recorder: Recorder) -> Path:
    recorder.finish("FINISHED")
    recorder.close()
    return recorder.folder


def read_metrics(shipper: Shipper, name: str) -> list[tuple[int, int, float]]:
    history = shipper.client.get_metric_history(shipper.run_id, name)
    return [(metric.timestamp, metric.step, metric.value) for metric in history]


def test_metrics_keep_their_steps_and_times(home: Path, recorded: Callable[..., Path]) -> None:
    folder = recorded(steps=40)
    shipper = ship(home, folder)
    written = [
        (record.time_ms, record.step, record.values["train/loss"])
        for record, _ in read_records(folder)
        if isinstance(record, Metrics) and "train/loss" in record.values
    ]

    assert sorted(read_metrics(shipper, "train/loss")) == sorted(written)
    records = [record for record, _ in read_records(folder)]
    run = shipper.client.get_run(shipper.run_id)
    assert (run.info.start_time, run.info.end_time) == (
        records[0].time_ms,
        records[-1].time_ms,
    )

    assert run.info.run_name == "train-run-1"


def test_a_replay_from_the_start_doubles_nothing(home: Path, recorded: Callable[..., Path]) -> None:
    folder = recorded(steps=25)
    run_id = ship(home, folder).run_id
    for _ in range(2):
        (folder / STATE).unlink()
        shipper = ship(home, folder)

    assert shipper.run_id == run_id
    assert [step for _, step, _ in sorted(read_metrics(shipper, "train/loss"))] == list(
        range(1, 26)
    )
    assert len(shipper.client.search_model_versions("name='lightlm'")) == 1
    assert len(shipper.client.get_run(run_id).inputs.dataset_inputs) == 1
    assert shipper.is_over()


def test_a_damaged_state_means_from_the_start_exactly_once(
    home: Path, recorded: Callable[..., Path]
) -> None:
    folder = recorded(steps=3)
    run_id = ship(home, folder).run_id
    intact = json.loads((folder / STATE).read_text())
    size = (folder / JOURNAL).stat().st_size
    assert intact["cursor"] == size
    damaged = [intact | {name: value} for name, value in (
        ("cursor", size + 1), ("cursor", 10**30), ("cursor", size - 1), ("cursor", -1), ("cursor", "7"),
        ("cursor", 1.5), ("cursor", None), ("run_id", 7), ("version", []), ("version", {"name": 1}),
        ("is_finished", "yes"), ("refused", {}),
    )]  # fmt: skip

    for content in (*damaged, [1], None, float("nan")):
        (folder / STATE).write_text(json.dumps(content))
        assert count_unsent(folder) == len(list(read_records(folder))), "it does not count as sent"
        assert list(list_pending(home)) == [folder]

    for content in (b"", b"{", b"\xff", b"[" * 100_000, json.dumps(damaged[0]).encode()):
        (folder / STATE).write_bytes(content)
        shipper = ship(home, folder)
        assert shipper.run_id == run_id

    assert len(read_metrics(shipper, "train/loss")) == 3
    assert len(shipper.client.search_model_versions("name='lightlm'")) == 1
    assert list(list_pending(home)) == []


def test_more_metrics_than_one_request_takes(home: Path, database: Path) -> None:
    recorder = begin(home)
    for step in range(1200):
        recorder.log_metrics({"a": step, "b": -step}, step)
    shipper = ship(home, end(recorder))
    for name, sign in (("a", 1), ("b", -1)):
        assert [value for _, _, value in sorted(read_metrics(shipper, name))] == [
            sign * step for step in range(1200)
        ]


def test_what_mlflow_refuses_is_left_out_and_said_and_the_rest_arrives(
    home: Path, database: Path
) -> None:
    recorder = begin(home)
    recorder.log_params({"seed": 1})
    recorder.log_params({"seed": 2})
    recorder.log_metrics({"train/loss": 3.0}, 1)
    recorder.log_metrics({"bad?name": 3.0}, 2)
    recorder.log_metrics({"train/loss": 2.0}, 3)
    recorder.set_tags({"": "no name"})
    recorder.set_tags({"after": "here"})
    shipper = ship(home, end(recorder))
    run = shipper.client.get_run(shipper.run_id)
    assert run.data.params == {"seed": "1"}
    assert [step for _, step, _ in read_metrics(shipper, "train/loss")] == [1, 3]
    assert run.data.tags["after"] == "here"
    assert run.data.tags[REFUSED_TAG].startswith("MLflow refused a record of params")
    assert run.info.status == "FINISHED"
    assert count_unsent(shipper.folder) == 0


def test_long_values_odd_letters_and_endless_losses_do_not_stop_a_run(
    home: Path, database: Path
) -> None:
    recorder = begin(home)
    recorder.log_params({"long": "x" * 20_000})
    recorder.describe("y" * 20_000)
    recorder.log_text("caf\udce9 \0 \U0001f600", "samples/step-1.txt")
    for step, loss in enumerate([3.0, float("nan"), float("inf"), 2.0], start=1):
        recorder.log_metrics({"train/loss": loss, "validation/bits_per_byte": loss}, step)

    shipper = ship(home, end(recorder))
    assert shipper.client.get_run(shipper.run_id).info.status == "FINISHED"
    assert shipper.state.refused is None
    assert len(read_metrics(shipper, "train/loss")) == 4
    assert [value for _, value in read_points(shipper.folder, "train/loss")] == [3.0, 2.0]
    assert {artifact.path for artifact in shipper.client.list_artifacts(shipper.run_id)} == {
        "loss.png",
        "samples",
    }


def test_a_store_that_does_not_know_the_run_gets_all_of_it(
    home: Path, recorded: Callable[..., Path], new_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = recorded(steps=5, is_finished=False)
    first = ship(home, folder)
    recorder = Recorder(folder)
    recorder.log_metrics({"train/loss": 0.5}, 6)
    recorder.close()
    other = home.parent / "other"
    (other / "mlartifacts").mkdir(parents=True)
    shutil.copyfile(new_database, other / "mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # mlflow.set_tracking_uri has set it
    shipper = Shipper(folder, open_client(other), other)
    with pytest.raises(Exception, match="not found"):
        shipper.ship()

    shipper.ship()
    assert shipper.run_id != first.run_id
    assert [step for _, step, _ in sorted(read_metrics(shipper, "train/loss"))] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]


def test_a_deleted_experiment_takes_runs_again(home: Path, recorded: Callable[..., Path]) -> None:
    first = ship(home, recorded("run-1", steps=1, is_finished=False))
    experiment = first.client.get_run(first.run_id).info.experiment_id
    first.client.delete_experiment(experiment)
    second = ship(home, recorded("run-2", steps=1, is_finished=False))
    assert second.client.get_run(second.run_id).info.experiment_id == experiment


def test_a_model_whose_files_are_gone_is_not_registered_but_the_run_ends(
    home: Path, recorded: Callable[..., Path], model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = recorded(steps=2)
    elsewhere = home / "pruned"
    moved = Recorder(home / "runs" / "moved")

    for record, _ in read_records(folder):
        if isinstance(record, Register):
            request = record.request.model_copy(update={"hf_folder": elsewhere})
            record = record.model_copy(update={"request": request})
        append_record(moved._journal, record)

    moved.close()
    sent: list[dict[str, Any]] = []
    shipper = Shipper(moved.folder, open_client(home), home, send=sent.append)
    shipper.ship()
    assert sent == [{"version": None}]
    assert shipper.client.search_model_versions("name='lightlm'") == []
    run = shipper.client.get_run(shipper.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags[REFUSED_TAG].startswith(
        f"the model is not registered: there is no {moved.folder / elsewhere.name}"
    )


def test_that_mlflow_is_back_is_known_before_the_parent_has_its_version(
    home: Path, recorded: Callable[..., Path]
) -> None:
    heard: list[str] = []
    shipper = Shipper(
        recorded(steps=2),
        open_client(home),
        home,
        send=lambda record: heard.extend(record),
        accepted=lambda: heard.append("accepted"),
    )

    shipper.ship()
    sent = heard.index("version")
    assert heard[sent - 1] == "accepted"
    assert "accepted" in heard[: sent - 1]


def test_a_run_that_died_ends_when_its_last_record_was_written(
    home: Path, recorded: Callable[..., Path]
) -> None:
    folder = recorded(steps=4, is_finished=False)
    shipper = ship(home, folder)
    shipper.end("KILLED", "its process died")
    last = [record.time_ms for record, _ in read_records(folder)][-1]
    info = shipper.client.get_run(shipper.run_id).info
    assert (info.status, info.end_time) == ("KILLED", last)
    assert json.loads((folder / STATE).read_text())["is_finished"]


def test_what_is_recorded_after_the_end_is_told_too(
    home: Path, recorded: Callable[..., Path]
) -> None:
    folder = recorded(steps=2)
    ship(home, folder)
    recorder = Recorder(folder)
    recorder.describe("stopped by Ctrl-C in the last second")
    recorder.finish("FAILED")
    recorder.close()
    shipper = Shipper(folder, open_client(home), home)
    assert not shipper.is_over()
    shipper.ship()
    run = shipper.client.get_run(shipper.run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["mlflow.note.content"].startswith("stopped")
    assert shipper.is_over()


def test_who_ships_after_another_answers_what_that_one_was_asked_in_vain(
    home: Path, recorded: Callable[..., Path], request_for: Callable[..., Any]
) -> None:
    ship(home, recorded("earlier", steps=1))
    recorder = begin(home, "killed")
    recorder.ask_champion(["lightlm"])
    ship(home, recorder.folder)  # the killed one's process, to nobody
    sent: list[dict[str, Any]] = []
    shipper = Shipper(recorder.folder, open_client(home), home, send=sent.append)
    assert not shipper.is_over()
    assert not shipper.ship()
    assert [answer["champion"]["version"] for answer in sent] == ["1"]
    recorder.register(request_for(1.2))
    ship(home, end(recorder))
    again = Shipper(recorder.folder, open_client(home), home, send=sent.append)
    assert not again.is_over()  # nothing to send, and yet something to say
    again.ship()
    assert [answer["version"]["version"] for answer in sent if "version" in answer] == ["2"]
    assert again.is_over()


def test_what_an_earlier_start_of_the_run_asked_is_not_answered_again(
    home: Path, database: Path
) -> None:
    recorder = begin(home)
    recorder.ask_champion(["lightlm"])
    recorder.start_run("run-1", "lightlm", {}, "", system_metrics=False)
    ship(home, recorder.folder)
    sent: list[dict[str, Any]] = []
    Shipper(recorder.folder, open_client(home), home, send=sent.append).ship()
    assert sent == []
    recorder.close()
