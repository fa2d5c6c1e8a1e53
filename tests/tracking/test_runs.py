"""The list of runs: what their records say, of the living, the ended and the dead."""

import json
import os
from pathlib import Path

from lightlm.tracking.recorder import LOCK, Recorder
from lightlm.tracking.runs import LOSSES, list_runs


def record(
    home: Path, name: str, losses: list[float], status: str | None, **counts: object
) -> Recorder:
    """Record a run as a train-flow does; it is left open."""
    recorder = Recorder(home / "runs" / name)
    recorder.start_run("train-0.02h-notes", "lightlm", {}, "", system_metrics=False)
    recorder.log_dataset({"name": "notes", "digest": "0"})
    plan = {
        "predicted_bits_per_byte": 1.9,
        "num_parameters": 4200,
        "model": {"num_layers": 2, "model_dim": 64},
        "counts": counts or None,
    }

    recorder.log_text(json.dumps(plan), "plan.json")
    for step, loss in enumerate(losses, 1):
        recorder.log_metrics({"train/loss": loss, "budget/elapsed_seconds": 2.0 * step}, step)
    if status == "FINISHED":
        recorder.log_metrics({"evaluation/bits_per_byte": 2.01}, len(losses))
    if status is not None:
        recorder.finish(status)  # type: ignore[arg-type]

    return recorder


def test_a_run_has_its_predicted_and_its_reached_score(tmp_path: Path) -> None:
    record(tmp_path, "20260101-000000-aaaaaa", [5.0, 4.0, 3.0], "FINISHED").close()
    (run,) = list_runs(tmp_path)
    assert (run.state, run.hours, run.dataset, run.shape) == ("finished", 0.02, "notes", "2 x 64")
    assert (run.predicted_bits_per_byte, run.bits_per_byte, run.num_parameters) == (1.9, 2.01, 4200)
    assert (run.losses, run.steps, run.seconds) == ([5.0, 4.0, 3.0], 3, 6.0)
    assert run.version is None


def test_the_prediction_is_that_of_the_score_with_count_tables_where_the_version_gets_them(
    tmp_path: Path,
) -> None:
    for name, is_mixed in (("20260101-000000-aaaaaa", True), ("20260102-000000-bbbbbb", False)):
        values = {"is_mixed": is_mixed, "predicted_bits_per_byte": 1.6}
        record(tmp_path, name, [3.0], "FINISHED", **values).close()
    assert [run.predicted_bits_per_byte for run in list_runs(tmp_path)] == [1.9, 1.6]


def test_the_newest_runs_come_first_and_no_more_than_asked_for(tmp_path: Path) -> None:
    for name in ("20260101-000000-aaaaaa", "20260103-000000-cccccc", "20260102-000000-bbbbbb"):
        record(tmp_path, name, [1.0], "KILLED").close()
    assert [run.run[-6:] for run in list_runs(tmp_path, 2)] == ["cccccc", "bbbbbb"]
    assert {run.state for run in list_runs(tmp_path)} == {"stopped"}


def test_a_run_without_an_end_runs_as_long_as_its_process_lives(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "20260101-000000-aaaaaa"
    recorder = record(tmp_path, folder.name, [3.0], None)
    assert list_runs(tmp_path)[0].state == "running"
    recorder.close()
    # A clock that is set during the run moves psutil's start of the process past the file's time.
    os.utime(folder / LOCK, (1.0, 1.0))
    assert list_runs(tmp_path)[0].state == "running"
    (folder / LOCK).write_text(f"{os.getpid()} another process that had this number\n")
    assert list_runs(tmp_path)[0].state == "died"


def test_looking_at_a_run_does_not_keep_it_from_being_continued(tmp_path: Path) -> None:
    record(tmp_path, "20260101-000000-aaaaaa", [3.0], "KILLED").close()
    assert list_runs(tmp_path)[0].state == "stopped"
    continued = record(tmp_path, "20260101-000000-aaaaaa", [2.0], None)
    assert list_runs(tmp_path)[0].state == "running"
    continued.close()


def test_a_long_run_keeps_a_thinned_loss_and_a_damaged_record_is_left_out(tmp_path: Path) -> None:
    record(
        tmp_path, "20260101-000000-aaaaaa", [float(i) for i in range(500, 0, -1)], "FINISHED"
    ).close()
    broken = tmp_path / "runs" / "20260102-000000-bbbbbb"
    broken.mkdir(parents=True)
    (broken / "record.journal").write_bytes(b"\xff\x00 no record\n")
    (run,) = list_runs(tmp_path)
    assert len(run.losses) == LOSSES
    assert run.losses == sorted(run.losses, reverse=True)
