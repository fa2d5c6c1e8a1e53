import math

import pytest

from lightlm.budget.history import NO_CORRECTION, History


def test_a_machine_without_runs_corrects_nothing(tmp_path):
    assert History(tmp_path).correct("machine", "text") == NO_CORRECTION
    assert NO_CORRECTION.reasons() == []


def test_what_is_recorded_is_read_again_each_run_once(tmp_path, make_run):
    history = History(tmp_path)
    runs = [make_run(run=f"run-{index}", ended_at=float(index)) for index in range(3)]
    for run in [*runs, runs[0]]:
        history.record(run)
    assert history.read() == runs


def test_runs_from_mlflow_count_as_well_as_own_ones(tmp_path, make_run):
    history = History(tmp_path)
    own = make_run(run="own", ended_at=2.0)
    other = make_run(run="other", ended_at=1.0)
    history.record(own)
    history.replace_mlflow_runs([other.model_dump(), own.model_dump(), {"run": "broken"}])
    assert history.read() == [other, own]


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[null, 3]", b"\xff"])
def test_a_broken_list_from_mlflow_costs_only_itself(tmp_path, content, make_run):
    history = History(tmp_path)
    history.record(make_run())
    (tmp_path / "finished_runs_mlflow.json").write_bytes(content)
    assert history.read() == [make_run()]


def test_speed_is_corrected_by_the_median_on_the_same_hardware(tmp_path, make_run):
    history = History(tmp_path)
    for index, speed in enumerate((8_000.0, 9_000.0, 9_900.0)):
        history.record(make_run(run=f"run-{index}", tokens_per_second=speed))
    history.record(make_run(run="elsewhere", hardware_id="other", tokens_per_second=1.0))
    history.record(make_run(run="short", training_seconds=1.0, tokens_per_second=1.0))
    correction = history.correct("machine", "text")
    assert correction.speed == pytest.approx(0.9)
    assert correction.num_speeds == 3
    assert history.correct("unknown", "text").speed == 1.0


def test_the_loss_is_corrected_only_by_runs_on_the_same_whole_text(tmp_path, make_run):
    history = History(tmp_path)
    history.record(make_run(run="another text", text_sha256="another"))
    history.record(make_run(run="a prefix", is_whole=False))
    assert history.correct("machine", "text").loss == 1.0
    law = make_run().law_bits_per_byte
    for index in range(4):
        history.record(make_run(run=f"run-{index}", bits_per_byte=law * 1.10))

    correction = history.correct("machine", "text")
    # Four runs against half a run's trust in the law.
    assert correction.loss == pytest.approx(math.exp(math.log(1.10) * 4 / 4.5))
    assert correction.num_losses == 4
    assert correction.relative_error is not None
    assert 0.015 <= correction.relative_error < 0.05


def test_a_correction_is_explained_in_sentences(tmp_path, make_run):
    history = History(tmp_path)
    history.record(make_run())
    speed, loss = history.correct("machine", "text").reasons()
    assert speed == "the last run on this hardware ran at 90% of the timed speed"
    assert loss.startswith("1 earlier run on this text moved the prediction by ")


def test_a_home_that_refuses_does_not_fail_a_finished_run(tmp_path, make_run):
    (tmp_path / "elsewhere").write_text("a file where the folder should be")
    history = History(tmp_path / "elsewhere")
    history.record(make_run())
    history.replace_mlflow_runs([make_run().model_dump()])
    assert history.read() == []
