"""A run on several texts, from Python: what it reads of each, and that all of its records know it."""

import random
from pathlib import Path

import pytest

import lightlm
from lightlm.errors import ParameterError
from lightlm.model.card import write_card
from lightlm.rendering.page import Table
from lightlm.runs.dataset_change import read_change
from lightlm.runs.finished import read_finished_run
from lightlm.runs.report import provenance, render_texts
from lightlm.runs.retraining import choose_text
from lightlm.runs.summary import RunSummary, describe_summary
from lightlm.tracking import registry
from lightlm.tracking.record import Dataset, Metrics, Text, read_records
from lightlm.tracking.registry import list_versions
from lightlm.tracking.runs import list_runs
from lightlm.tracking.tags import LEARNED_TAG, OTHERS_TAG
from tests.command_line import write_paragraph

TINY = {
    "budget.planner": "manual",
    "budget.max_steps": 20,
    "tokenizer.vocab_size": 300,
    "model.num_layers": 1,
    "model.model_dim": 32,
    "model.num_heads": 2,
    "model.context_length": 32,
    "training.batch_tokens": 512,
    "training.num_threads": 1,
    "training.num_validations": 1,
    "tracking.system_metrics": False,
}


class Mixed:
    """A home with a run on three texts."""

    def __init__(self, folder: Path) -> None:
        choose = random.Random(3)
        self.home = folder / "home"
        self.own = self._write(folder / "letters.txt", choose, 60)
        self.general = self._write(folder / "stories.txt", choose, 150)
        self.more = self._write(folder / "more.txt", choose, 10)
        self.numbers = folder / "numbers.txt"
        self.numbers.write_text(
            "\n\n".join(str(choose.getrandbits(900)) for _ in range(60)), "utf-8"
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LIGHTLM_HOME", str(self.home))
            self.home.mkdir()
            self.trained = lightlm.train(
                [self.own, f"{self.general}:0.25", f"{self.more}:once", self.numbers],
                0.1,
                overrides=TINY,
            )
        self.summary = RunSummary.model_validate(self.trained.summary)
        self.folder = Path(self.summary.folder).parent

    @staticmethod
    def _write(path: Path, choose: random.Random, number: int) -> Path:
        path.write_text("\n\n".join(write_paragraph(choose) for _ in range(number)), "utf-8")
        return path


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Mixed:
    return Mixed(tmp_path_factory.mktemp("mixed"))


def test_the_plan_says_what_each_text_gets(mixed: Mixed) -> None:
    own, general, more, numbers = mixed.summary.plan.texts
    names = [own.name, general.name, more.name, numbers.name]
    assert names == ["letters", "stories", "more", "numbers"]
    assert (general.share, numbers.share) == (0.25, 0)
    assert any("numbers: by a trial" in reason for reason in mixed.summary.plan.reasons)
    assert more.epochs == pytest.approx(1, rel=1e-3)
    assert own.share + general.share + more.share == pytest.approx(1)


def test_the_first_text_names_and_judges_the_model(mixed: Mixed) -> None:
    summary = mixed.summary
    assert summary.model_name == "letters"
    assert summary.score.text_sha256 == summary.dataset["validation_sha256"]
    assert "champion" in summary.aliases


def test_each_text_has_its_score_and_all_have_one_together(mixed: Mixed) -> None:
    summary = mixed.summary
    assert [one.name for one in summary.others] == ["stories", "more", "numbers"]
    scores = [summary.score, *(one.score for one in summary.others)]
    nats = sum(one.bits_per_byte * one.num_bytes for one in scores)
    assert summary.together_bits_per_byte == pytest.approx(
        nats / sum(one.num_bytes for one in scores)
    )
    clauses = describe_summary(summary).texts
    assert clauses[0].startswith("stories, 25.0% of the tokens read (")
    assert clauses[-1].startswith("all held-out text together ")


def test_the_record_of_the_run_knows_every_text(mixed: Mixed) -> None:
    records = [record for record, _ in read_records(mixed.folder)]
    names = [record.values["name"] for record in records if isinstance(record, Dataset)]
    assert names == ["letters", "stories", "more", "numbers"]
    paths = {record.path for record in records if isinstance(record, Text)}
    assert paths >= {"data.json", "data-stories.json", "data-more.json"}
    metrics = {name for record in records if isinstance(record, Metrics) for name in record.values}
    assert metrics >= {
        "evaluation/bits_per_byte",
        "evaluation/stories/bits_per_byte",
        "evaluation/together_bits_per_byte",
    }


def test_mlflow_has_each_text_as_an_input(mixed: Mixed) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTLM_HOME", str(mixed.home))
        client = registry.open_client(mixed.home)
        inputs = client.get_run(mixed.summary.run_id).inputs.dataset_inputs
        assert sorted(one.dataset.name for one in inputs) == [
            "letters",
            "more",
            "numbers",
            "stories",
        ]
        (version,) = list_versions(mixed.home, "letters")

    assert version.tags[OTHERS_TAG].startswith("stories, 25.0% of the tokens read (")
    assert version.tags[LEARNED_TAG].count(",") == 3
    model = mixed.summary.plan.model
    assert "| mixed with | stories, 25.0%" in write_card("letters", "1", model, version.tags, "hf")


def test_the_run_is_listed_under_its_first_text(mixed: Mixed) -> None:
    (run,) = list_runs(mixed.home)
    assert run.dataset == "letters"


def test_the_report_has_a_table_of_the_texts(mixed: Mixed) -> None:
    (table,) = [block for block in render_texts(mixed.summary) if isinstance(block, Table)]
    assert [row[0] for row in table.rows] == ["letters", "stories", "more", "numbers", "together"]
    assert f"{mixed.summary.bits_per_byte:.4f}" in table.rows[0]
    known = provenance(read_finished_run(mixed.folder))
    assert known["with stories"].startswith(f"from {mixed.general}, subset's digest ")


def test_retraining_reads_all_texts_again_and_sees_a_change_of_each(
    mixed: Mixed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTLM_HOME", str(mixed.home))
    params = choose_text(mixed.home, "retrain").params
    assert [(one.source, one.weight) for one in params.dataset.others] == [
        (str(mixed.general), 0.25),
        (str(mixed.more), "once"),
        (str(mixed.numbers), "auto"),
    ]
    assert not read_change(mixed.home, params)[0].is_changed
    before = mixed.more.read_text("utf-8")
    mixed.more.write_text(f"{before}\n\nA new letter.", "utf-8")
    try:
        assert read_change(mixed.home, params)[0].is_changed
    finally:
        mixed.more.write_text(before, "utf-8")


def test_a_weight_of_the_first_text_is_refused(mixed: Mixed) -> None:
    with pytest.raises(ParameterError, match="is the first text, which the model is judged by"):
        lightlm.train([f"{mixed.own}:0.5", mixed.general], 0.1)
