"""Run folders: which run is continued, which is not, and what it keeps."""

import os
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from lightlm.errors import BusyError, InputError
from lightlm.params import Params, load_params
from lightlm.runs.folder import (
    LEDGER,
    LOCK,
    Run,
    claim_run,
    count_live_runs,
    find_run,
    is_alive,
    journal_of,
    last_recorded_steps,
)
from lightlm.store.lock import hold_lock
from lightlm.store.stage import fingerprint
from lightlm.tracking.recorder import Recorder


@pytest.fixture
def params() -> Params:
    return load_params()


def die(run: Run) -> None:
    """Let go of a run as the kernel does for a killed process: nothing is noted."""
    run.close()


def test_a_run_that_died_is_continued_with_what_it_spent_and_decided(
    home: Path, params: Params
) -> None:
    first = claim_run(home, "train", params)
    first.decide("vocab_sizes", [512])
    first.ledger.started_at -= 20.0
    die(first)
    second = claim_run(home, "train", params)
    assert second.folder == first.folder
    assert second.is_continued
    assert second.decide_once("vocab_sizes", lambda: [1024]) == [512]
    assert 20.0 <= second.ledger.elapsed_seconds < params.budget.hours * 3600
    die(second)


def test_the_same_command_beside_a_run_that_lives_is_refused(home: Path, params: Params) -> None:
    first = claim_run(home, "train", params)
    with pytest.raises(
        BusyError, match="the same run is going on; `lightlm watch` follows it, --fresh"
    ) as refused:
        claim_run(home, "train", params)
    assert refused.value.exit_code == 75
    assert f"process {os.getpid()} holds" in str(refused.value)
    die(first)
    assert len(list((home / "runs").iterdir())) == 1


def test_with_fresh_the_same_command_trains_beside_a_run_that_lives(
    home: Path, params: Params
) -> None:
    first = claim_run(home, "train", params)
    second = claim_run(home, "train", params, is_fresh=True)
    assert second.folder != first.folder
    assert not second.is_continued
    die(second)
    assert first.decided("over") is None
    die(first)


def test_of_commands_that_start_together_one_trains(home: Path, params: Params) -> None:
    claimed: list[Run] = []
    refused: list[BusyError] = []

    def claim() -> None:
        try:
            claimed.append(claim_run(home, "train", params))
        except BusyError as error:
            refused.append(error)

    threads = [threading.Thread(target=claim) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(claimed), len(refused)) == (1, 4)
    die(claimed[0])


def test_a_lock_that_is_held_for_a_moment_by_who_looks_at_a_dead_run_is_waited_for(
    home: Path, params: Params
) -> None:
    first = claim_run(home, "train", params)
    die(first)
    os.utime(first.folder / LEDGER, (1.0, 1.0))
    with ExitStack() as looking:
        looking.enter_context(hold_lock(first.folder / LOCK))
        threading.Timer(0.3, looking.close).start()
        second = claim_run(home, "train", params)
    assert second.folder == first.folder
    die(second)


def test_live_runs_are_counted_and_those_that_ended_or_died_are_not(home: Path) -> None:
    own, ended, lives, died = (
        claim_run(home, name, load_params()) for name in ("own", "ended", "lives", "died")
    )
    ended.end("FINISHED")
    die(ended)
    die(died)
    (died.folder / LOCK).write_text("4194304999")
    assert count_live_runs(home, own.folder) == 1
    assert is_alive(lives.folder)
    die(lives)
    die(own)


def test_a_run_that_is_over_is_not_continued_and_keeps_no_checkpoint(
    home: Path, params: Params
) -> None:
    first = claim_run(home, "train", params)
    (first.folder / "checkpoints" / "step-000000001").mkdir(parents=True)
    assert first.has_checkpoint
    first.end("FINISHED")
    assert not first.has_checkpoint
    die(first)
    second = claim_run(home, "train", params)
    assert second.folder != first.folder
    die(second)


def test_only_a_run_of_the_same_params_and_name_is_continued(home: Path, params: Params) -> None:
    first = claim_run(home, "train", params)
    die(first)
    other = claim_run(home, "train", load_params(overrides={"training.seed": 1}))
    retrained = claim_run(home, "retrain", params)
    assert len({first.folder, other.folder, retrained.folder}) == 3
    die(other)
    die(retrained)


def test_a_fresh_start_gives_the_unfinished_run_up(home: Path, params: Params) -> None:
    first = claim_run(home, "train", params)
    die(first)
    fresh = claim_run(home, "train", params, is_fresh=True)
    assert fresh.folder != first.folder
    fresh.end("FINISHED")
    die(fresh)
    assert claim_run(home, "train", params).folder not in (first.folder, fresh.folder)


def test_a_text_is_known_by_its_place_wherever_the_command_is_given(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.txt").write_text("text")
    first = claim_run(home, "train", load_params(dataset=str(tmp_path / "text.txt")))
    die(first)
    monkeypatch.chdir(tmp_path)
    second = claim_run(home, "train", load_params(dataset="text.txt"))
    assert second.folder == first.folder
    die(second)


def test_what_is_forgotten_is_decided_anew_and_what_was_trained_on_it_is_gone(
    home: Path, params: Params
) -> None:
    run = claim_run(home, "train", params)
    run.decide("score", 1.5)
    (run.folder / "checkpoints" / "step-000000001").mkdir(parents=True)
    run.forget(("score", "registration"))
    assert run.decided("score") is None
    assert not run.has_checkpoint
    die(run)
    again = claim_run(home, "train", params)
    assert again.decided("score") is None
    die(again)


def test_a_run_whose_model_is_scored_has_nothing_left_to_compute(
    home: Path, params: Params
) -> None:
    run = claim_run(home, "train", params)
    run.decide("score", {"bits_per_byte": 1.5})
    assert not run.is_scored, "its model is not there"
    (run.folder / "model").mkdir()
    assert run.is_scored
    die(run)
    again = claim_run(home, "train", params)
    assert again.is_scored
    again.forget(("score",))
    assert not again.is_scored
    die(again)


def test_the_last_steps_told_are_read_from_the_record(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.log_metrics({"train/loss": 2.0}, 5)
    recorder.log_metrics({"validation/bits_per_byte": 1.5}, 3)
    recorder.log_metrics({"budget/hours": 1.0}, 9)
    recorder.close()
    assert last_recorded_steps(tmp_path) == {"StepDone": 5, "Validated": 3}


def make_runs(home: Path, *names: str) -> None:
    for name in names:
        (home / "runs" / name).mkdir(parents=True)
        (home / "runs" / name / "summary.json").touch()


def is_finished(folder: Path) -> bool:
    return (folder / "summary.json").is_file()


def test_a_run_is_found_by_path_name_beginning_and_end_and_the_newest_without(home: Path) -> None:
    make_runs(home, "20260101-1200-abc", "20260102-1200-abd", ".of-no-run")
    (home / "runs" / "20260103-1200-abe").mkdir()
    first = home / "runs" / "20260101-1200-abc"
    for name in (str(first), first.name, "20260101", "abc"):
        assert find_run(home, name, is_finished) == first
    assert find_run(home, None, is_finished).name == "20260102-1200-abd"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("2026", "2 finished runs begin or end with '2026' in .*; give one of 20260101-1200-abc, "),
        ("x", "no finished run begins or ends with 'x' in .*; give one of 20260101-1200-abc, "),
        ("", "2 finished runs begin or end with ''"),
    ],
)
def test_a_name_of_no_or_several_runs_is_refused(home: Path, name: str, told: str) -> None:
    with pytest.raises(InputError, match=r"there is no finished run in .*; run `lightlm train`"):
        find_run(home, name, is_finished, "finished run")
    make_runs(home, "20260101-1200-abc", "20260102-1200-abd")
    with pytest.raises(InputError, match=told):
        find_run(home, name, is_finished, "finished run")


def test_a_run_keeps_the_journal_that_it_had_before_there_were_further_texts_and_mirrors(
    tmp_path: Path,
) -> None:
    params = load_params(dataset="python-docs")
    values = params.model_dump(mode="json")
    assert values["dataset"].pop("others") == []
    assert values["dataset"].pop("mask") is False
    for name in ("trackio", "wandb", "grams_co2_per_kwh"):
        assert values["tracking"].pop(name) is None
    before = fingerprint("run", {"name": "one", "params": values})
    assert journal_of(tmp_path, "one", params).name == f"run-{before}.journal"

    mixed = load_params(dataset="python-docs", overrides={"dataset.others": ["letters:0.3"]})
    assert journal_of(tmp_path, "one", mixed) != journal_of(tmp_path, "one", params)
