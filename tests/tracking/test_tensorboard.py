"""TensorBoard's copy of a run: all its numbers and samples, and no harm where it fails."""

import importlib.util
import threading
from pathlib import Path

import pytest

from lightlm.errors import ParameterError
from lightlm.store.home import find_home
from lightlm.tracking.following import follow
from lightlm.tracking.outbox import Outbox
from lightlm.tracking.recorder import Recorder
from lightlm.tracking.tensorboard import (
    check_tensorboard,
    open_event_files,
    start_following,
    tag_folder,
)

event_accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="an extra: tensorboard"
)


def record(folder: Path, into: Path | None) -> Recorder:
    folder.mkdir(exist_ok=True)
    recorder = Recorder(folder)
    tags = tag_folder(None if into is None else str(into))
    recorder.start_run("train", "lightlm", tags, "", system_metrics=False)
    return recorder


def read(folder: Path) -> object:
    events = event_accumulator.EventAccumulator(str(folder))
    return events.Reload()


def test_numbers_samples_and_params_are_written_with_their_steps_and_times(tmp_path: Path) -> None:
    recorder = record(tmp_path / "run-1", tmp_path / "board")
    recorder.log_params({"budget.hours": 0.1})
    for step in (1, 2, 3):
        recorder.log_metrics({"train/loss": 4.0 / step}, step)
    recorder.log_text("The river", "samples/step-0000002.txt")
    recorder.log_text("{}", "plan.json")
    recorder.finish("FINISHED")
    recorder.close()
    follow(tmp_path / "run-1", threading.Event(), open_event_files)

    events = read(tmp_path / "board" / "run-1")
    points = events.Scalars("train/loss")
    assert [(one.step, one.value) for one in points] == [
        (1, 4.0), (2, 2.0), (3, pytest.approx(4 / 3)),
    ]  # fmt: skip
    assert points[0].wall_time > 1e9
    assert events.Tensors("samples")[0].tensor_proto.string_val == [b"The river"]
    assert events.Tensors("samples")[0].step == 2
    assert b"budget.hours: 0.1" in events.Tensors("params")[0].tensor_proto.string_val[0]


def test_a_process_that_starts_again_writes_each_point_once(tmp_path: Path) -> None:
    recorder = record(tmp_path / "run-1", tmp_path / "board")
    recorder.log_metrics({"train/loss": 4.0}, 1)
    is_over = threading.Event()
    is_over.set()
    follow(tmp_path / "run-1", is_over, open_event_files)
    recorder.log_metrics({"train/loss": 3.0}, 2)
    follow(tmp_path / "run-1", is_over, open_event_files)
    recorder.close()
    assert [one.step for one in read(tmp_path / "board" / "run-1").Scalars("train/loss")] == [1, 2]


def test_the_outbox_writes_it_while_mlflow_gets_its_own(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run-1"
    recorder = record(folder, tmp_path / "board")
    recorder.log_metrics({"train/loss": 4.0}, 1)
    recorder.finish("FINISHED")
    recorder.close()
    shipment = Outbox.start(find_home(), folder).close(90)
    assert (shipment.num_unsent, shipment.error) == (0, None)
    assert [one.value for one in read(tmp_path / "board" / "run-1").Scalars("train/loss")] == [4.0]


@pytest.mark.parametrize("is_wanted", [True, False])
def test_a_folder_that_cannot_be_written_ends_nothing_else(tmp_path: Path, is_wanted: bool) -> None:
    (tmp_path / "board").write_text("a file")
    recorder = record(tmp_path / "run-1", tmp_path / "board" if is_wanted else None)
    recorder.close()
    errors: list[BaseException] = []
    start_following(tmp_path / "run-1", threading.Event(), errors.append).join(30)
    assert bool(errors) == is_wanted
    assert (tmp_path / "board").read_text() == "a file"


def test_without_the_package_the_folder_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_tensorboard("board")
    with pytest.raises(ParameterError, match=r"is 'True', wanted a folder .* such as board"):
        check_tensorboard("True")
    assert tag_folder(None) == {}
    assert all(Path(path).is_absolute() for path in tag_folder("board").values())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_tensorboard(None)
    with pytest.raises(ParameterError, match=r"pip install 'lightlm\[tensorboard\]'"):
        check_tensorboard("board")
