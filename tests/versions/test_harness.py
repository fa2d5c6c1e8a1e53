"""A version on tasks of lm-evaluation-harness: refused before anything slow, scored, recorded."""

import importlib.util
import json
from pathlib import Path

import pytest

from lightlm.errors import InputError
from lightlm.versions.harness import LARGEST_BATCH, check_tasks, choose_batch_size
from tests.command_line import FIRST_VERSION, Trained

TASK = """
task: continuations
dataset_path: json
dataset_kwargs:
  data_files: {test: continuations.jsonl}
test_split: test
output_type: multiple_choice
doc_to_text: "{{start}}"
doc_to_choice: "{{ends}}"
doc_to_target: 0
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata: {version: 2.0}
"""

MINIMAL_PAIR = {
    "sentence_good": "The old river crosses the garden of winter 7.",
    "sentence_bad": "Zq vv the the 7 crosses winter of.",
}


@pytest.fixture
def task_folder(tmp_path: Path) -> Path:
    """A folder with a task of its own, and with BLiMP's data under its name on the Hub."""
    folder = tmp_path / "tasks"
    blimp = folder / "nyu-mll" / "blimp"
    blimp.mkdir(parents=True)
    (folder / "continuations.yaml").write_text(TASK)
    rows = [{"start": "The quiet teacher", "ends": ["crosses the river", "zqvx qqk"]}] * 3
    (folder / "continuations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (blimp / "pairs.jsonl").write_text(json.dumps(MINIMAL_PAIR) + "\n")
    (blimp / "README.md").write_text(
        "---\nconfigs:\n- config_name: adjunct_island\n  data_files:\n  - split: train\n"
        "    path: pairs.jsonl\n---\n"
    )
    return folder


def test_what_cannot_be_scored_is_refused_before_anything_slow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert check_tasks(" blimp, lambada_openai,blimp,", None) == ("blimp", "lambada_openai")
    with pytest.raises(InputError, match="names of tasks, such as blimp"):
        check_tasks(" ,", None)
    with pytest.raises(InputError, match="is no folder"):
        check_tasks("blimp", tmp_path / "none")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'lightlm\[tasks\]'"):
        check_tasks("blimp", None)


def test_the_batch_shrinks_with_the_logits_of_a_sequence() -> None:
    assert choose_batch_size(4096, 256) == LARGEST_BATCH
    assert choose_batch_size(32_000, 1024) == 4
    assert choose_batch_size(151_936, 32_768) == 1


def test_options_of_tasks_and_of_texts_are_not_mixed(trained: Trained) -> None:
    both = trained.lightlm("evaluate", trained.text, "--tasks", "blimp")
    assert (both.code, "give either tasks or a text" in both.err) == (2, True)
    alone = trained.lightlm("evaluate", trained.text, "--limit", 3)
    assert (alone.code, "are for --tasks" in alone.err) == (2, True)


@pytest.mark.slow
def test_the_harness_scores_a_version_offline_and_mlflow_and_report_show_it(
    trained: Trained, task_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval", reason="an extra: tasks")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    words = ("evaluate", "--task-folder", task_folder, *FIRST_VERSION)
    done = trained.lightlm(*words, "--tasks", "continuations,blimp_adjunct_island", "--json").json
    scores = {score["task"]: score for score in done["scores"] if score["metric"] == "acc"}
    assert scores["continuations"]["num_documents"] == 3
    assert scores["continuations"]["task_version"] == "2.0"
    assert scores["continuations"]["value"] == 1.0
    assert scores["blimp_adjunct_island"]["value"] == 1.0
    assert "also in MLflow, as metrics and as tasks/" in done["note"]

    page = tmp_path / "report"
    reported = trained.lightlm("report", "--no-send", "--into", page)
    assert reported.code == 0, reported.err
    assert "On tasks of lm-evaluation-harness" in (page / "report.html").read_text()

    unknown = trained.lightlm(*words, "--tasks", "continuation")
    assert unknown.code == 1
    assert "there is no task continuation in" in unknown.err
    assert "near are continuations" in unknown.err
    (task_folder / "continuations.jsonl").unlink()
    missing = trained.lightlm(*words, "--tasks", "continuations")
    assert (missing.code, "--tasks continuations: " in missing.err) == (1, True)
