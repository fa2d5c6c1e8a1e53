"""A run without an orchestrator: its stages train, score and register a model where neither Prefect
nor Typer can be imported.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lightlm.runs.summary import RunSummary
from tests.command_line import SECONDS, write_paragraph

RUN = """
import json, sys
from types import SimpleNamespace

sys.modules["prefect"] = sys.modules["typer"] = None  # whoever imports these from now on fails

import lightlm.runs.planning, lightlm.runs.report, lightlm.runs.removal, lightlm.runs.retraining
import lightlm.runs.watching, lightlm.versions.export, lightlm.versions.text
from lightlm.data.subset import open_subset
from lightlm.params import load_params
from lightlm.runs.alone import run_stages
from lightlm.runs.champion import ChampionQuestion, read_answer, read_scores
from lightlm.runs.orchestrator import NO_FLOW_RUN, SilentPage
from lightlm.runs.launch import Launch
from lightlm.runs.session import open_session
from lightlm.store.home import find_home

overrides = {
    "budget.planner": "manual", "budget.max_steps": 4, "tokenizer.vocab_size": 300,
    "model.num_layers": 1, "model.model_dim": 32, "model.num_heads": 2, "model.context_length": 32,
    "training.batch_tokens": 256, "training.num_threads": 1, "training.num_validations": 1,
    "tracking.system_metrics": False,
}
params = load_params(overrides=overrides, dataset=sys.argv[1], hours=0.1)
with open_session(find_home(), params, "alone", {}, SilentPage(), NO_FLOW_RUN, Launch(is_quiet=True)) as session:
    summary = run_stages(session, params)
    # Neither a worker nor an outbox: whoever wants to compute or to fetch fails.
    bare = SimpleNamespace(home=session.home, params=params)
    question = ChampionQuestion(["letters"], True)
    (subset,) = (session.home / "store" / "subsets").glob("*/manifest.json")
    found = read_scores(
        bare, question, read_answer(bare, question).version, open_subset(subset.parent),
        SimpleNamespace(dtype="float32", device="cpu"),
    )

assert session.params is params, "no stage replaces the params"
print(summary.model_dump_json())
print(json.dumps({"version": found.version.version, "bits_per_byte": found.scores.bits_per_byte}))
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return the summary that a run without Prefect prints, and what the next one reads of it."""
    folder = tmp_path_factory.mktemp("alone")
    choose = random.Random(2)
    text = folder / "letters.txt"
    text.write_text("\n\n".join(write_paragraph(choose) for _ in range(60)), encoding="utf-8")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW"))}
    ended = subprocess.run(
        [sys.executable, "-P", "-c", RUN, text],
        capture_output=True,
        env=kept | {"LIGHTLM_HOME": str(folder / "home")},
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.fixture(scope="module")
def summary(ended: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the summary alone."""
    return ended[0]


def test_the_stages_make_a_registered_model_without_prefect_and_typer(
    summary: dict[str, Any],
) -> None:
    assert (summary["model_name"], summary["started_from"]) == ("letters", "scratch")
    assert summary["tokens"] == 4 * 256
    assert 0 < summary["bits_per_byte"] < 16
    assert Path(summary["folder"], "model.safetensors").is_file()


def test_every_stage_is_charged_to_the_ledger(summary: dict[str, Any]) -> None:
    assert summary["ledger"].keys() >= {
        *("check", "probe", "data", "tokenizer", "shards", "training"),
        *("final evaluation", "registration"),
    }


def test_the_summary_in_the_run_folder_is_read_back(summary: dict[str, Any]) -> None:
    kept = (Path(summary["folder"]).parent / "summary.json").read_bytes()
    assert RunSummary.model_validate_json(kept) == RunSummary.model_validate(summary)


def test_the_next_run_reads_the_champion_s_scores_and_computes_none(
    ended: list[dict[str, Any]],
) -> None:
    summary, champion = ended
    assert champion["version"] == summary["model_version"] == "1"
    assert champion["bits_per_byte"] == pytest.approx(summary["bits_per_byte"])
