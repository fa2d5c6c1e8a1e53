"""`lightlm train --start` through the front door: from a base to a version that keeps what the base
was.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.bases.conftest import save_base
from tests.command_line import Trained, settings

OPTIONS = settings(
    training__num_threads=1,
    training__num_validations=1,
    tracking__system_metrics="false",
    model__context_length=32,
    budget__max_steps=6,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("bases") / "tiny-llama", tie_word_embeddings=True)


@pytest.fixture(scope="module")
def summary(trained: Trained, base: Path) -> dict[str, Any]:
    """Return the summary of a run that started from the base."""
    ended = trained.lightlm(
        "train", "--hours", "60s", "--dataset", trained.text, "--start", base, "--name", "continued",
        "--json", *OPTIONS,
    )  # fmt: skip
    return ended.json


def test_a_run_says_what_the_base_had_and_what_it_reached(summary: dict[str, Any]) -> None:
    assert summary["started_from"] == "tiny-llama"
    assert summary["final_bits_per_byte"] <= summary["start_bits_per_byte"]
    plan = summary["plan"]
    assert (plan["planner"], plan["model"]["family"]) == ("base", "llama")
    assert any("untouched" in reason for reason in plan["reasons"])


@pytest.mark.slow
def test_the_version_opens_elsewhere_as_its_base_did(
    summary: dict[str, Any], base: Path, trained: Trained, tmp_path: Path
) -> None:
    ended = trained.lightlm(
        "export", tmp_path / "hf", "--to", "hf", "--name", "continued", "--json"
    )
    assert ended.json["is_same_text"]

    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert theirs.config.model_type == "llama"
    assert theirs.config.max_position_embeddings == 96
    chat = [{"role": "user", "content": "hello"}]
    kept, before = (AutoTokenizer.from_pretrained(one) for one in (tmp_path / "hf", base))
    assert kept.apply_chat_template(chat, tokenize=False) == before.apply_chat_template(
        chat, tokenize=False
    )

    card = (tmp_path / "hf" / "README.md").read_text()
    assert "trained on from tiny-llama" in card
    assert "license: apache-2.0" in card
    assert "score before and after" in card


@pytest.mark.slow
def test_text_is_written_and_the_report_names_the_base(
    summary: dict[str, Any], trained: Trained
) -> None:
    written = trained.lightlm(
        "generate", "The", "--name", "continued", "--max-new-tokens", "4", "--json"
    )
    assert written.code == 0, written.err
    page = trained.lightlm("report", Path(summary["folder"]).parent.name)
    assert page.code == 0, page.err
    assert "What the base had" in Path(summary["folder"]).with_name("report.html").read_text()


@pytest.mark.slow
def test_a_retraining_goes_on_from_a_champion_that_began_from_a_base(
    summary: dict[str, Any], trained: Trained
) -> None:
    ended = trained.lightlm(
        "retrain", "--force", "--start", "champion", "--name", "continued", "--hours", "60s",
        "--json", *OPTIONS, *settings(start__tuned="lora"),
    )  # fmt: skip
    again = ended.json["run"]
    assert again["started_from"] == "version 1 of continued"
    assert again["plan"]["trainer"]["tuned"] == "lora"
    folder = Path(again["folder"])
    assert again["kept_start"] or (folder / "adapter" / "adapter_config.json").is_file()
    assert json.loads((folder / "base.json").read_text())["id"] == "tiny-llama"


def test_bases_are_listed(summary: dict[str, Any], trained: Trained) -> None:
    listed = trained.lightlm.here("bases", "--json").json
    assert "tiny-llama" in {one["name"] for one in listed["bases"] if one["place"] == "store"}
    assert "models:/continued/" in " ".join(listed["registered"])
    shown = trained.lightlm.here("bases")
    assert "registered" in shown.out
    assert "SmolLM2" in shown.out


@pytest.mark.parametrize(
    ("source", "message"),
    [("./nothing", "there is no ./nothing"), ("a-name", "a-name")],
)
def test_a_source_that_is_not_there_is_refused(trained: Trained, source: str, message: str) -> None:
    ended = trained.lightlm(
        "train", "--hours", "60s", "--start", source, "--dataset", "python-docs"
    )
    assert ended.code == 2
    assert message in ended.err
