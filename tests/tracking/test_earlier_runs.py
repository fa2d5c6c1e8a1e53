"""Tests of what MLflow tells of earlier runs, against a real SQLite MLflow."""

from pathlib import Path

from lightlm.budget.history import FinishedRun, History
from lightlm.tracking.earlier_runs import (
    FINISHED_RUN_TAG,
    HARDWARE_TAG,
    bring_history,
    fetch_finished_runs,
)
from lightlm.tracking.recorder import Recorder
from lightlm.tracking.registry import open_client
from lightlm.tracking.shipper import Shipper

RUN = FinishedRun(
    run="elsewhere-1", ended_at=1.0, hardware_id="abc", hours=0.1, dataset="novel", text_sha256="t", shape="s",
    matrix_parameters=1000, seen_bytes=1e6, unique_bytes=1_000_000, difficulty=1.0, training_seconds=60.0,
    planned_tokens_per_second=100.0, tokens_per_second=90.0, predicted_bits_per_byte=2.0, predicted_low=1.9,
    predicted_high=2.1, bits_per_byte=2.05, is_whole=True,
)  # fmt: skip


def ship(home: Path, key: str, tags: dict[str, str], status: str = "FINISHED") -> Shipper:
    recorder = Recorder(home / "runs" / key)
    recorder.start_run(key, "lightlm", tags, "", system_metrics=False)
    recorder.finish(status)  # pyright: ignore[reportArgumentType]
    recorder.close()
    shipper = Shipper(recorder.folder, open_client(home), home)
    shipper.ship()
    return shipper


def test_a_finished_run_is_told_to_the_next_plan_and_nothing_else_is(
    home: Path, database: Path
) -> None:
    told = {HARDWARE_TAG: RUN.hardware_id, FINISHED_RUN_TAG: RUN.model_dump_json()}
    client = ship(home, "run-1", told).client
    ship(home, "run-2", told, status="FAILED")
    ship(home, "run-3", {})
    ship(home, "run-4", {HARDWARE_TAG: "abc", FINISHED_RUN_TAG: "{broken"})
    assert fetch_finished_runs(client) == [RUN.model_dump()]
    bring_history(client, home)
    assert History(home).read() == [RUN]
