"""What a continued run takes over from the process that died: results, timings, nothing that is
damaged.
"""

from pathlib import Path
from typing import Any

from lightlm.runs.resume import replay_training
from lightlm.runs.session import start_worker
from lightlm.store.commit import commit_folder
from lightlm.training.events import StepDone, Validated, to_json
from lightlm.training.messages import TrainResult

STEP = StepDone(7, 0.9, 2.25, 0.1, 1.5, 64, 448, 0.01, 0.001)
SCORE = Validated(7, 0.9, 2.125, 0.25)


def publish(folder: Path, *, is_stopped: bool = False) -> TrainResult:
    """Commit a model as a training leaves it at its end."""
    result = TrainResult(
        folder=folder / "model",
        step=7,
        total_tokens=448,
        training_seconds=1.0,
        final_learning_rate_factor=0.001,
        tokens_per_second=448.0,
        micro_batch_size=4,
        memory_bytes=1,
        is_stopped=is_stopped,
        used_best_checkpoint=False,
    )

    def write(temporary: Path) -> dict[str, Any]:
        (temporary / "weights").write_text("weights")
        return {"result": result.model_dump(mode="json"), "events": [to_json(STEP), to_json(SCORE)]}

    commit_folder(result.folder, "model", write)
    return result


def test_a_training_that_had_ended_is_told_again_without_a_worker(tmp_path: Path) -> None:
    result = publish(tmp_path)
    records = replay_training(tmp_path)
    assert records is not None
    assert [record["event"] for record in records[:-1]] == ["StepDone", "Validated"]
    assert TrainResult.model_validate(records[-1]["result"]) == result


def test_a_training_that_was_stopped_or_whose_model_is_damaged_is_not_over(tmp_path: Path) -> None:
    assert replay_training(tmp_path / "nothing") is None
    publish(tmp_path / "stopped", is_stopped=True)
    assert replay_training(tmp_path / "stopped") is None
    publish(tmp_path / "damaged")
    (tmp_path / "damaged" / "model" / "weights").write_text("weighed")
    assert replay_training(tmp_path / "damaged") is None


def test_a_worker_that_is_not_needed_is_not_started(tmp_path: Path) -> None:
    assert start_worker(tmp_path, tmp_path, is_needed=False)._process is None
