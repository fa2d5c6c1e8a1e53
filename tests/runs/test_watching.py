"""Watching: a run's folder, written as a run writes it, and one that really ran."""

import io
import threading
from pathlib import Path

import pytest

import lightlm.runs.watching
from lightlm.console.progress import Progress
from lightlm.console.terminal import open_console
from lightlm.runs.watching import FollowedRun, format_end, wait_for_summary
from lightlm.store.journal import Journal
from lightlm.tracking.recorder import Recorder
from tests.command_line import Trained


def record_steps(recorder: Recorder, first: int, last: int) -> None:
    """Record steps as a train-flow does."""
    for step in range(first, last + 1):
        values = {
            "train/loss": 5.0,
            "train/tokens": 1000.0 * step,
            "throughput/tokens_per_second": 2000.0,
            "budget/progress": step / 100,
            "budget/elapsed_seconds": 10.0 + step,
        }
        recorder.log_metrics(values, step)


def test_a_run_is_followed_from_record_to_record_to_its_end(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    ledger = Journal(tmp_path / "budget.journal")
    recorder.start_run("train-0.02h-notes", "lightlm", {}, "", system_metrics=False)
    ledger.append({"seconds": 11.0, "entries": {"check": 1.0}})
    run = FollowedRun(tmp_path)
    shown = io.StringIO()

    with Progress(run.clock, console=open_console(shown)) as display:
        run.look(display)
        assert run.clock.budget_seconds == pytest.approx(72)
        assert display.stage == "Checking the system"
        record_steps(recorder, 1, 3)
        ledger.append({"seconds": 14.0, "entries": {"check": 1.0, "training": 3.0}})
        run.look(display)
        assert display.numbers.step == 3
        assert display.stage == "Training"
        assert 14.0 <= run.clock.elapsed_seconds < 72
        recorder.log_metrics({"validation/bits_per_byte": 2.25}, 3)
        recorder.log_text("The end \x1b[2J", "samples/step-0000003.txt")
        recorder.finish("FINISHED")
        run.look(display)

    recorder.close()
    ledger.close()
    assert run.status == "FINISHED"
    assert format_end(run).startswith("train-0.02h-notes: finished (14 s of 72 s used)")
    assert "2.250 bits per byte held out" in shown.getvalue()
    assert "The end \\x1b[2J" in shown.getvalue()
    assert "\x1b" not in shown.getvalue()


def test_a_run_whose_process_is_gone_is_said_to_be_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_record = Recorder(tmp_path)
    with_record.start_run("train-0.02h-notes", "lightlm", {}, "", system_metrics=False)
    monkeypatch.setattr(lightlm.runs.watching, "SILENT_SECONDS", -1.0)
    run = FollowedRun(tmp_path)
    run.look(Progress(run.clock, quiet=True))
    with_record.close()
    assert run.is_silent
    assert "its process is gone or halted" in format_end(run)


def test_a_continued_run_is_no_longer_over(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.start_run("train-0.02h-notes", "lightlm", {}, "", system_metrics=False)
    recorder.finish("KILLED")
    recorder.start_run("train-0.02h-notes", "lightlm", {}, "", system_metrics=False)
    run = FollowedRun(tmp_path)
    run.look(Progress(run.clock, quiet=True))
    recorder.close()
    assert run.status is None


def test_a_run_that_is_over_is_shown_at_once_with_its_exit_code(trained: Trained) -> None:
    name = Path(trained.summary["folder"]).parent.name
    ended = trained.lightlm("watch", name)
    assert ended.code == 0, ended.err
    for words in ("Plan: ", "loss", "on the held-out text", "version 1: ", "finished"):
        assert words in ended.err, words
    assert trained.lightlm("watch", name, "--quiet").err == ""


def test_a_run_is_followed_until_its_model_is_registered(trained: Trained, tmp_path: Path) -> None:
    folder = Path(trained.summary["folder"]).parent
    recorder = Recorder(tmp_path)
    recorder.start_run("train-0.005h-stories", "lightlm", {}, "", system_metrics=False)
    recorder.finish("FINISHED")
    recorder.close()
    run = FollowedRun(tmp_path)
    shown = io.StringIO()

    def register() -> None:
        (tmp_path / "summary.json").write_bytes((folder / "summary.json").read_bytes())

    registration = threading.Timer(0.6, register)
    registration.start()
    with Progress(run.clock, console=open_console(shown)) as display:
        run.look(display)
        wait_for_summary(run, display)

    registration.join()
    promotion = trained.summary["promotion"]
    assert f"version {trained.summary['model_version']}: {promotion}" in " ".join(
        shown.getvalue().split()
    )
