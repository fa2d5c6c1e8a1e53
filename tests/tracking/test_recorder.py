"""Tests of the run's own record: everything with its time, no secret, no network."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lightlm.errors import BusyError
from lightlm.store import disk
from lightlm.store.journal import read_journal
from lightlm.tracking.record import JOURNAL, RegistrationRequest
from lightlm.tracking.recorder import Recorder
from tests.test_redaction import SECRETS


def write_everywhere(recorder: Recorder, request: RegistrationRequest, text: str) -> None:
    recorder.start_run(f"train {text}", f"experiment {text}", {"mlflow.source.name": text}, text)
    recorder.log_params({"dataset.source": text})
    recorder.set_tags({"url": text})
    recorder.log_text(text, "plan.json")
    recorder.log_dataset({"name": text, "digest": "d", "source": text, "notice": text})
    recorder.describe(text)
    told = {
        "description": text,
        "tags": {"origin": text},
        "params": {"dataset.source": text},
        "not_compared": text,
    }

    recorder.register(request.model_copy(update=told))


def test_records_come_back_in_order_with_their_kinds_and_times(
    tmp_path: Path, request_for: Callable[..., RegistrationRequest]
) -> None:
    recorder = Recorder(tmp_path / "run-7")
    recorder.start_run("name", "lightlm", {"mlflow.user": "somebody"}, "text")
    recorder.log_params({"training.seed": 0})
    recorder.log_metrics({"train/loss": 2.5}, 3)
    recorder.register(request_for())
    recorder.finish("FINISHED")
    recorder.close()
    records = [record for record, _ in read_journal(tmp_path / "run-7" / JOURNAL)]
    assert [record["kind"] for record in records] == [
        "start",
        "params",
        "metrics",
        "register",
        "finish",
    ]

    assert records[0]["run_key"] == "run-7"
    assert records[0]["tags"] == {"mlflow.user": "somebody"}
    assert records[1]["values"] == {"training.seed": "0"}
    assert (records[2]["values"], records[2]["step"]) == ({"train/loss": 2.5}, 3)
    assert RegistrationRequest.model_validate(records[3]["request"]) == request_for()
    assert records[4]["status"] == "FINISHED"
    times = [record["time_ms"] for record in records]
    assert times == sorted(times)


@pytest.mark.parametrize(("secret", "text"), SECRETS)
def test_a_secret_is_hidden_wherever_it_stands(
    tmp_path: Path, request_for: Callable[..., RegistrationRequest], secret: str, text: str
) -> None:
    recorder = Recorder(tmp_path)
    write_everywhere(recorder, request_for(), text)
    recorder.close()
    assert secret not in (tmp_path / JOURNAL).read_text("utf-8")


@pytest.mark.parametrize(
    "name", ["hub.token", "HF_TOKEN", "db_password", "client.secret", "service.api_key"]
)
def test_a_value_is_hidden_by_its_name(tmp_path: Path, name: str) -> None:
    recorder = Recorder(tmp_path)
    recorder.log_params({name: "sesame 42"})
    recorder.set_tags({name: "sesame 42"})
    recorder.close()
    assert b"sesame" not in (tmp_path / JOURNAL).read_bytes()


def test_counts_and_tokenizers_tokens_stay_though_their_names_end_in_token(tmp_path: Path) -> None:
    params = {
        "flops_per_token": "1.5e+08",
        "tokenizer.end_of_text_token": "<|endoftext|>",
        "hub.token": "None",
        "password": "",
    }
    recorder = Recorder(tmp_path)
    recorder.log_params(params)
    recorder.close()
    assert next(read_journal(tmp_path / JOURNAL))[0]["values"] == params


def test_what_databases_refuse_is_replaced(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.log_dataset({"name": "caf\udce9.txt", "digest": "d", "source": "a\0b"})
    recorder.close()
    values = next(read_journal(tmp_path / JOURNAL))[0]["values"]
    assert values["source"] == "a\ufffdb"
    assert values["name"].encode().decode() == values["name"], "it can be written as UTF-8"
    assert values["name"].startswith("caf\ufffd")


def test_two_processes_do_not_record_one_run(tmp_path: Path) -> None:
    first = Recorder(tmp_path)
    with pytest.raises(BusyError, match=str(os.getpid())):
        Recorder(tmp_path)
    first.close()
    Recorder(tmp_path).close()


RECORD = """
import sys
import time
reached = []
sys.addaudithook(lambda event, args: reached.append(event) if event.startswith("socket.") else None)
from pathlib import Path
from lightlm.tracking.recorder import Recorder
recorder = Recorder(Path(sys.argv[1]))
recorder.start_run("name", "lightlm", {}, "")
recorder.log_metrics({"train/loss": 1.0}, 1)
recorder.log_text("text", "a.txt")
recorder.finish("FINISHED")
recorder.close()
assert reached == [], reached
assert "mlflow" not in sys.modules and "torch" not in sys.modules
"""


def test_recording_opens_no_socket_and_imports_no_mlflow(tmp_path: Path) -> None:
    environment = os.environ | {"MLFLOW_TRACKING_URI": "http://192.0.2.1:5000"}
    command = [sys.executable, "-c", RECORD, str(tmp_path)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list(read_journal(tmp_path / JOURNAL))) == 4


def test_every_record_is_told_word_for_word(
    tmp_path: Path, request_for: Callable[..., RegistrationRequest]
) -> None:
    before = time.time()
    recorder = Recorder(tmp_path / "run-7")
    recorder.start_run("name", "experiment", {"a": "b"}, "text")
    recorder.start_run("name", "experiment", {}, "text", system_metrics=False)
    recorder.set_tags({"url": "u"})
    recorder.describe("*text*")
    recorder.log_text("content", "a/plan.json")
    recorder.log_dataset({"name": "stories", "num_documents": 60})
    recorder.ask_champion(["lightlm", "other"], {"source": "/a/lightlm"})
    recorder.register(request_for())
    recorder.close()
    records = [record for record, _ in read_journal(tmp_path / "run-7" / JOURNAL)]
    assert all(before - 1 <= record.pop("time_ms") / 1000 <= time.time() + 1 for record in records)
    start = {
        "kind": "start",
        "name": "name",
        "experiment": "experiment",
        "run_key": "run-7",
        "description": "text",
    }

    assert records[:-1] == [
        start | {"system_metrics": True, "tags": {"a": "b"}},
        start | {"system_metrics": False, "tags": {}},
        {"kind": "tags", "values": {"url": "u"}},
        {"kind": "tags", "values": {"mlflow.note.content": "*text*"}},
        {"kind": "text", "path": "a/plan.json", "content": "content"},
        {"kind": "dataset", "values": {"name": "stories", "num_documents": 60}},
        {"kind": "champion", "names": ["lightlm", "other"], "origin": {"source": "/a/lightlm"}},
    ]

    assert records[-1] == {"kind": "register", "request": request_for().model_dump(mode="json")}


def test_a_runs_start_registration_and_end_wait_for_the_disk_and_nothing_else_does(
    tmp_path: Path, request_for: Callable[..., RegistrationRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(tmp_path)
    synced: list[int] = []
    monkeypatch.setattr(disk.os, "fsync", synced.append)

    def count(record: Callable[[], None]) -> int:
        synced.clear()
        record()
        return len(synced)

    assert count(lambda: recorder.start_run("name", "lightlm", {}, "")) == 1
    assert count(lambda: recorder.register(request_for())) == 1
    assert count(lambda: recorder.finish("FINISHED")) == 1
    assert count(lambda: recorder.log_metrics({"train/loss": 1.0}, 1)) == 0
    assert count(lambda: recorder.log_params({"a": 1})) == 0
    recorder.close()


def test_a_records_time_never_goes_backward(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    folder = home / "runs" / "run-1"
    for offset in (0, 3600, -7200, 0, -60):
        recorder = Recorder(folder)
        for shift in (0, -7200, 600):
            monkeypatch.setattr(time, "time", lambda by=offset + shift: real() + by)
            recorder.log_metrics({"a": 1.0}, 1)
        recorder.close()

    times = [record["time_ms"] for record, _ in read_journal(folder / JOURNAL)]
    assert len(times) == 15
    assert times == sorted(times)
    assert times[-1] < 1000 * (real() + 3600 + 600 + 60)
