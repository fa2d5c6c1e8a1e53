"""Runs mirrored in Trackio and Weights & Biases: refused early, written for real, waited for
never.
"""

import importlib.util
import sqlite3
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lightlm.errors import ParameterError
from lightlm.params import TrackingParams, load_params
from lightlm.tracking.mirrors import Mirrors, check_mirrors
from lightlm.tracking.recorder import Recorder

SECONDS = 120.0
"""Only bounds a failure."""


def choose(**values: str) -> TrackingParams:
    return load_params().tracking.model_copy(update=values)


def record_run(folder: Path) -> Recorder:
    folder.mkdir(parents=True)
    recorder = Recorder(folder)
    recorder.start_run("train-0.1h-notes", "lightlm", {}, "", system_metrics=False)
    recorder.log_params({"budget.hours": 0.1})
    for step in (1, 2, 3, 2):  # a restored checkpoint goes back
        recorder.log_metrics({"train/loss": 4.0 / step}, step)
    recorder.log_text("The river", "samples/step-0000002.txt")
    return recorder


def read_log(content: bytes) -> Iterator[bytes]:
    """Yield the records of a .wandb file: LevelDB's log in blocks of 32 KiB, behind 7 bytes."""
    place = 7
    record = b""
    while place + 7 <= len(content):
        if (left := 32_768 - place % 32_768) < 7:
            place += left
            continue
        _, size, kind = struct.unpack_from("<IHB", content, place)
        record += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield record
            record = b""


def wait_for_end(mirrors: Mirrors) -> None:
    deadline = time.monotonic() + SECONDS
    for process in mirrors.processes:
        process.wait(max(0.0, deadline - time.monotonic()))


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_mirror_that_cannot_work_is_refused_before_the_run_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    check_mirrors(choose())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    check_mirrors(choose(trackio="lightlm"))
    with pytest.raises(ParameterError, match="is 'true', wanted the name of a project of Trackio"):
        check_mirrors(choose(trackio="true"))
    with pytest.raises(ParameterError, match="`wandb login`, set WANDB_API_KEY, or WANDB_MODE=off"):
        check_mirrors(choose(wandb="lightlm"))

    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password 0123\n")
    check_mirrors(choose(wandb="lightlm"))
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    with pytest.raises(ParameterError, match="wants a key"):
        check_mirrors(choose(wandb="lightlm"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_mirrors(choose(wandb="lightlm"))

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ParameterError, match=r"pip install 'lightlm\[wandb\]'"):
        check_mirrors(choose(wandb="lightlm"))


def test_a_mirror_that_fails_says_why_in_its_log_and_ends_alone(tmp_path: Path) -> None:
    if importlib.util.find_spec("wandb") is not None:
        pytest.skip("wandb is installed")
    folder = tmp_path / "run-1"
    recorder = record_run(folder)
    mirrors = Mirrors(folder, choose(wandb="lightlm"))
    wait_for_end(mirrors)
    assert "No module named 'wandb'" in (folder / "wandb.log").read_text()
    recorder.finish("FINISHED")
    recorder.close()
    mirrors.close()


def test_weights_and_biases_offline_gets_the_run_and_sends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = pytest.importorskip("wandb.proto.wandb_internal_pb2", reason="an extra: wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / "runs" / "20261201-101500-abcdef"
    recorder = record_run(folder)
    mirrors = Mirrors(folder, choose(wandb="lightlm"))
    recorder.finish("FINISHED")
    recorder.close()
    mirrors.close()
    wait_for_end(mirrors)

    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    rows = []
    codes = []
    for content in read_log(path.read_bytes()):
        one = proto.Record()
        one.ParseFromString(content)
        if one.HasField("history"):
            items = {item.nested_key[0]: item.value_json for item in one.history.item}
            rows.append((items.get("step"), items.get("train/loss"), items.get("sample")))
        if one.HasField("exit"):
            codes.append(one.exit.exit_code)
    assert [row[:2] for row in rows if row[1]] == [
        ("1", "4"), ("2", "2"), ("3", "1.3333333333333333"), ("2", "2"),
    ]  # fmt: skip
    assert ("2", None, '"The river"') in rows
    assert codes == [0]


def test_trackio_gets_each_number_once_though_a_process_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trackio", reason="an extra: trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    folder = tmp_path / "runs" / "20261201-101500-abcdef"
    recorder = record_run(folder)
    first = Mirrors(folder, choose(trackio="lightlm"))
    deadline = time.monotonic() + SECONDS
    while not (folder / "trackio.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    first.close()
    wait_for_end(first)

    second = Mirrors(folder, choose(trackio="lightlm"))
    recorder.log_metrics({"train/loss": 0.5}, 4)
    recorder.finish("FINISHED")
    recorder.close()
    second.close()
    wait_for_end(second)
    with sqlite3.connect(tmp_path / "trackio" / "lightlm.db") as database:
        rows = database.execute(
            "select run_name, step, metrics from metrics order by id"
        ).fetchall()
    assert [(row[0], row[1]) for row in rows] == [
        ("train-0.1h-notes-abcdef", step) for step in (1, 2, 3, 2, 4)
    ]
    assert not any(psutil.pid_exists(one.pid) for one in first.processes)
