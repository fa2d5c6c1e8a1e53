"""generate-flow through Prefect: text from a registered version, and the flow run that Prefect
keeps of it.
"""

import json
from typing import Any

import pytest

from tests.command_line import Trained

OWNER = """
import json, sys
from lightlm_flows.prefect_api.embedded import apply_settings, start_api, without_heartbeats
from lightlm.store.home import find_home
apply_settings(find_home())
api = start_api()
from lightlm_flows.generate import generate_flow
from lightlm.errors import ModelVersionError, PromptError
from prefect.client.orchestration import get_client
from prefect.exceptions import ParameterTypeError
api.wait()

def refuse(expected, **arguments):
    try:
        generate_flow(**arguments)
    except expected as error:
        return str(error)

with without_heartbeats():
    sampling = {"temperature": 0, "max_new_tokens": 10}
    said = {
        "written": generate_flow("The old", model="models:/stories/1", sampling=sampling).model_dump(),
        "again": generate_flow("The old", model="models:/stories/1", sampling=sampling).model_dump(),
        "champion": generate_flow("The old", name="stories", sampling=sampling).model_dump(),
        "temperature": refuse(PromptError, prompt="The", sampling={"temperature": -1}),
        "unknown": refuse(PromptError, prompt="The", sampling={"warmth": 1}),
        "version": refuse(ModelVersionError, prompt="The", model="models:/stories/999"),
        "empty": refuse(ParameterTypeError, prompt=""),
    }
with get_client(sync_client=True) as client:
    runs = client.read_flow_runs()
    said["runs"] = [[run.name, run.state_name] for run in runs if run.name.startswith("generate-")]
    said["tasks"] = sorted({run.name.rpartition("-")[0] for run in client.read_task_runs()})
from lightlm.tracking.registry import open_client
client = open_client(find_home())
traces = client.search_traces(locations=[client.get_experiment_by_name("lightlm").experiment_id])
said["traces"] = [[t.info.status, t.data.spans[0].inputs, t.data.spans[0].outputs, t.info.tags] for t in traces]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(trained: Trained) -> dict[str, Any]:
    """Return what a process that calls generate_flow saw."""
    owner = trained.lightlm.start_python("-c", OWNER)
    out, err = owner.communicate(timeout=240)
    assert owner.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def test_the_flow_returns_the_text_and_the_version_that_wrote_it(said: dict[str, Any]) -> None:
    written = said["written"]
    assert (written["model_name"], written["model_version"], written["prompt"]) == (
        "stories",
        "1",
        "The old",
    )
    assert 0 < written["num_new_tokens"] <= 10
    assert written["text"]


def test_the_flow_and_the_command_write_the_same(said: dict[str, Any], trained: Trained) -> None:
    options = ["--model", "models:/stories/1", "--temperature", 0, "--max-new-tokens", 10, "--json"]
    assert (
        trained.lightlm.here("generate", "The old", *options).json["text"]
        == said["written"]["text"]
    )


def test_without_a_model_the_champion_writes(said: dict[str, Any], trained: Trained) -> None:
    listed = trained.lightlm.here("models", "--name", "stories", "--json").json["models"]
    (champion,) = [model["version"] for model in listed if "champion" in model["aliases"]]
    assert said["champion"]["model_version"] == champion


def test_what_cannot_be_used_fails_the_flow_with_the_commands_words(said: dict[str, Any]) -> None:
    assert "temperature is -1" in said["temperature"]
    assert "warmth" in said["unknown"]
    assert "stories has no version 999" in said["version"]
    assert "prompt" in said["empty"]


def test_prefect_keeps_the_runs_their_names_and_their_ends(said: dict[str, Any]) -> None:
    assert ["generate-stories-1", "Completed"] in said["runs"]
    assert ["generate-stories-999", "Failed"] in said["runs"]
    assert {"Find the registered version", "Write text"} <= set(said["tasks"])


def test_a_greedy_text_is_written_once_and_kept_by_its_version(
    said: dict[str, Any], trained: Trained
) -> None:
    assert not said["written"]["reused"]
    assert said["again"] == said["written"] | {"reused": True}
    kept = list((trained.lightlm.home / "texts" / "stories" / "1").glob("*.json"))
    assert said["written"]["text"] in {
        json.loads(path.read_text(encoding="utf-8"))["text"] for path in kept
    }


def test_mlflow_has_a_trace_of_each_text_with_prompt_version_and_times(
    said: dict[str, Any],
) -> None:
    status, inputs, outputs, tags = said["traces"][-1]
    assert status == "OK"
    assert (inputs["prompt"], inputs["max_new_tokens"]) == ("The old", 10)
    assert outputs["text"] == said["written"]["text"]
    assert tags["lightlm.model_version"] == "1"
    assert len(said["traces"]) == 3, "what is refused before it is written leaves none"
