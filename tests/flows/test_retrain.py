"""retrain-flow through the front door: a changed text is learned, an unchanged one is not, and one
command goes back.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lightlm.tracking.registry import describe
from tests.command_line import AMPLE, NO_RUNS, CommandLine, Ended, Trained, settings

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Retrained:
    """A home with a champion, and a retraining before and after its text has changed."""

    lightlm: CommandLine
    unchanged: Ended
    changed: Ended


@pytest.fixture(scope="module")
def retrained(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Retrained:
    """Return what is seen of `lightlm retrain` in a copy of the home, whose champion learned a copy
    of the text.
    """
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("retrained")
    shutil.copytree(trained.copy, folder / "home", ignore=NO_RUNS)
    lightlm = CommandLine(folder / "home", folder)
    text = Path(shutil.copy(trained.text, folder / "stories.txt"))
    client = MlflowClient(tracking_uri=f"sqlite:///{lightlm.home}/mlflow.db")
    learned = json.loads(client.get_model_version("stories", "1").tags["lightlm.dataset"])
    client.set_model_version_tag(
        "stories", "1", "lightlm.dataset", json.dumps(learned | {"source": str(text)})
    )

    command = ["retrain", *AMPLE, *settings(training__compile='"off"'), "--json"]
    unchanged = lightlm(*command)
    with text.open("a", encoding="utf-8") as file:
        file.write("\n\nThe quiet river remembers the lantern of the captain, and answers.\n")

    return Retrained(lightlm, unchanged, lightlm(*command, "--start", "champion"))


@pytest.fixture(scope="module")
def summary(retrained: Retrained) -> dict[str, Any]:
    """Return the retraining's JSON object."""
    return retrained.changed.json


@pytest.fixture(scope="module")
def client(retrained: Retrained) -> "MlflowClient":
    """Return MLflow's client of the home's database."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{retrained.lightlm.home}/mlflow.db")


def test_an_unchanged_data_set_is_said_to_be_so_and_nothing_is_trained(
    retrained: Retrained,
) -> None:
    said = retrained.unchanged.json
    assert (said["is_retrained"], said["run"], said["news"]["is_changed"]) == (False, None, False)
    assert f"is unchanged (digest {said['news']['digest']}) since version 1" in said["reason"]


def test_a_changed_data_set_makes_a_challenger_that_the_gate_judges(
    summary: dict[str, Any],
) -> None:
    assert summary["is_retrained"]
    assert summary["news"]["digest"] != summary["news"]["learnt_digest"]
    comparison = summary["comparison"]
    assert comparison["champion_version"] == "1"
    assert comparison["low"] <= comparison["difference"] <= comparison["high"]
    assert (
        comparison["num_documents"] + comparison["num_left_out"]
        == summary["run"]["score"]["num_documents"]
    )

    is_better = comparison["high"] < 0
    assert ("champion" in summary["run"]["aliases"]) == is_better
    assert summary["reason"].startswith(
        "version 2 is champion" if is_better else "version 1 stays champion"
    )


def test_going_on_from_the_champion_keeps_its_shape_and_what_it_knows(
    summary: dict[str, Any], trained: Trained, client: "MlflowClient"
) -> None:
    start = summary["start"]
    assert start["version"] == "1"
    assert start["continued_bits_per_byte"] > 0
    assert start["scratch_bits_per_byte"] > 0
    assert summary["run"]["plan"]["model"] == trained.summary["plan"]["model"]
    assert summary["run"]["bits_per_byte"] < summary["comparison"]["champion_bits_per_byte"] + 0.5
    tags = client.get_run(summary["run"]["run_id"]).data.tags
    assert tags["lightlm.started_from"] == "version 1"
    assert "bits per byte forecast" in tags["lightlm.start_reason"]


def test_mlflow_has_the_story_of_the_decision_with_a_picture(
    summary: dict[str, Any], client: "MlflowClient"
) -> None:
    run_id = summary["run"]["run_id"]
    paths = {item.path for item in client.list_artifacts(run_id)}
    assert paths >= {"decision.html", "decision.svg", "plan.html", "ledger.html", "ledger.json"}
    story = Path(client.download_artifacts(run_id, "decision.html")).read_text(encoding="utf-8")
    assert "Training started from version 1" in story
    assert "<svg" in story
    assert f"{summary['comparison']['difference']:+.4f}" in story
    metrics = client.get_run(run_id).data.metrics
    assert metrics["versus_champion/difference_high"] == pytest.approx(
        summary["comparison"]["high"]
    )


def test_the_version_says_what_it_learnt_and_how_it_compared(
    summary: dict[str, Any], client: "MlflowClient"
) -> None:
    first, version = (
        describe(client.get_model_version("stories", number)) for number in ("1", "2")
    )
    assert version.tags["source_digest"] == summary["news"]["digest"]
    learned = version.tags["learnt_subsets"].split(",")
    assert learned == [first.tags["dataset_digest"], summary["run"]["dataset"]["digest"]]
    assert int(version.tags["seen_bytes"]) > int(first.tags["seen_bytes"]) > 0
    assert version.tags["started_from"] == "version 1"
    assert "Against version 1: " in client.get_model_version("stories", "2").description
    assert client.get_registered_model("stories").description.startswith("Small language models")


def test_a_version_is_made_champion_by_hand(retrained: Retrained, summary: dict[str, Any]) -> None:
    was_promoted = "champion" in summary["run"]["aliases"]
    moved = retrained.lightlm(
        "rollback" if was_promoted else "promote", *([] if was_promoted else ["2"]), "--json"
    )
    assert moved.json["champion"] == ("1" if was_promoted else "2")
    assert moved.json["previous"] == ("2" if was_promoted else "1")
