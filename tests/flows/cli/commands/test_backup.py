"""A backup that is taken while training, restored elsewhere, generates; what was unfinished there
stays whole.
"""

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.command_line import CommandLine, Trained, settings


def restore(make_command_line: Callable[[], CommandLine], file: Path) -> CommandLine:
    lightlm = make_command_line()
    done = lightlm("restore", file)
    assert done.code == 0, done.err
    return lightlm


def trains(run: Path) -> bool:
    record = run / "record.journal"
    return record.exists() and b"train/loss" in record.read_bytes()


@pytest.mark.faults
def test_a_backup_taken_while_training_is_restored_elsewhere_and_generates(
    trained: Trained, make_command_line: Callable[[], CommandLine], tmp_path: Path
) -> None:
    assert trained.lightlm("backup", tmp_path / "first.tar").code == 0
    training = restore(make_command_line, tmp_path / "first.tar")
    written = trained.lightlm("generate", "The", "--seed", 1, "--json").json["text"]
    options = settings(training__compile='"off"', tokenizer__vocab_size=512)
    (earlier,) = (training.home / "runs").iterdir()
    process = training.start("train", "--hours", 0.01, "--dataset", trained.text, *options)
    deadline = time.monotonic() + 120

    while not any(
        trains(folder) for folder in (training.home / "runs").iterdir() if folder != earlier
    ):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)

    assert process.poll() is None, "the backup is taken while the training goes on"
    assert training("backup", tmp_path / "second.tar").code == 0
    process.kill()
    process.communicate()

    for left in training.list_processes():
        with suppress(psutil.NoSuchProcess):
            left.kill()
            left.wait(30)

    shutil.rmtree(training.home)

    elsewhere = restore(make_command_line, tmp_path / "second.tar")
    assert elsewhere("generate", "The", "--seed", 1, "--json").json["text"] == written
    verified = elsewhere("store", "verify")
    assert verified.code == 0, verified.err
    states = [run["state"] for run in elsewhere("runs", "--json").json["runs"]]
    assert sorted(states) == ["died", "finished"]
    assert elsewhere("sync").code == 0


def test_a_backup_is_refused_in_one_line(
    make_command_line: Callable[[], CommandLine], tmp_path: Path
) -> None:
    lightlm = make_command_line()
    (tmp_path / "no.tar").write_text("words")
    for words in (
        ["backup", tmp_path / "new.tar"],
        ["restore", tmp_path / "no.tar"],
        ["restore", tmp_path / "none"],
    ):
        refused = lightlm(*words)
        assert (refused.code, refused.err.count("\n")) == (2, 1), refused.err
