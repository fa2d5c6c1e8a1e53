"""The removal of runs by name, refused while they are needed."""

from pathlib import Path

import pytest

from lightlm.errors import BusyError, InputError
from lightlm.runs.removal import remove_run
from lightlm.store.lock import hold_lock
from lightlm.tracking.recorder import LOCK, Recorder


def make_run(home: Path, name: str) -> Path:
    """Return the folder of a run with one file."""
    folder = home / "runs" / name
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"weights")
    return folder


def test_a_removed_run_is_gone_and_the_sentence_names_it(home: Path) -> None:
    folder = make_run(home, "20260101-1200-abc")
    assert remove_run(home, "abc", is_forced=False).startswith(f"removed run {folder.name}: ")
    assert not folder.exists()


def test_a_run_whose_record_is_not_sent_yet_is_removed_by_force_alone(home: Path) -> None:
    folder = make_run(home, "20260101-1200-abc")
    recorder = Recorder(folder)
    recorder.start_run("train", "lightlm", {}, "")
    recorder.close()
    with pytest.raises(InputError, match="is not in MLflow yet"):
        remove_run(home, "abc", is_forced=False)
    remove_run(home, "abc", is_forced=True)
    assert not folder.exists()


def test_a_run_that_goes_on_is_not_removed(home: Path) -> None:
    folder = make_run(home, "20260101-1200-abc")
    with hold_lock(folder / LOCK, wait=False), pytest.raises(BusyError):
        remove_run(home, "abc", is_forced=True)
    assert (folder / "model.bin").is_file()
