"""Tests of what Prefect shows of a run: nothing that is shown can hold a run up or fail it."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import Trained

READ = """
import json, sys
from lightlm_flows.prefect_api.embedded import apply_settings, start_api
from lightlm.store.home import find_home
apply_settings(find_home())
api = start_api()
from prefect.client.orchestration import get_client
api.wait()
with get_client(sync_client=True) as client:
    (run,) = [one for one in client.read_flow_runs() if one.name.startswith("train-0.02h")]
    artifacts = client.read_artifacts()
    logs = client.request("POST", "/logs/filter", json={"limit": 200}).json()
print(json.dumps({
    "name": run.name,
    "state": run.state_name,
    "artifacts": {a.key: [a.type, a.data] for a in artifacts if a.flow_run_id == run.id},
    "logs": [log["message"] for log in logs if log["flow_run_id"] == str(run.id) and log["name"] == "lightlm"],
}))
"""

UNREACHABLE = """
import uuid
from lightlm_flows.prefect_api.artifacts import FlowPage
page = FlowPage(str(uuid.uuid4()))
for step in range(200):
    page.progress(step / 200)
    page.markdown("samples", "text", "what it wrote")
page.close(0.2)
print("alive")
"""


@pytest.fixture(scope="module")
def shown(trained: Trained) -> dict[str, Any]:
    """Return what Prefect has of the first run, read after it."""
    reader = trained.lightlm.start_python("-c", READ)
    out, err = reader.communicate(timeout=240)
    assert reader.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def test_the_run_has_a_name_that_says_what_it_was(shown: dict[str, Any]) -> None:
    assert (shown["name"], shown["state"]) == ("train-0.02h-stories", "Completed")


def test_prefect_shows_the_check_the_plan_the_progress_the_score_and_the_way_to_mlflow(
    shown: dict[str, Any], trained: Trained
) -> None:
    artifacts = shown["artifacts"]
    kinds = {key: kind for key, (kind, _) in artifacts.items()}
    assert kinds.items() >= {
        ("system-check", "table"),
        ("budget-plan", "markdown"),
        ("train-progress", "progress"),
        ("score", "table"),
        ("ledger", "table"),
        ("champion-decision", "markdown"),
        ("mlflow-run", "markdown"),
    }

    assert artifacts["train-progress"][1] == 100
    score = {row["what"]: row["value"] for row in json.loads(artifacts["score"][1])}
    assert score["bits per byte"] == f"{trained.summary['bits_per_byte']:.4f}"
    assert "first champion" in score["decision"]
    assert trained.summary["shape"] in artifacts["budget-plan"][1].replace("\\", "")
    assert re.search(
        rf"\(http://127\.0\.0\.1:5000/#/runs/{trained.summary['run_id']}\)",
        artifacts["mlflow-run"][1],
    )

    stages = {row["stage"]: row["seconds"] for row in json.loads(artifacts["ledger"][1])}
    assert stages["training"] == pytest.approx(trained.summary["ledger"]["training"], abs=0.01)


def test_prefect_keeps_what_lightlm_says(shown: dict[str, Any]) -> None:
    said = "\n".join(shown["logs"])
    assert "Reading the data set" in said
    assert "bits per byte held out" in said


def test_an_api_that_accepts_and_never_answers_costs_a_run_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        environment = os.environ | {
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_HOME": str(tmp_path),
            "PREFECT_PROFILES_PATH": str(tmp_path / "none.toml"),
            "PREFECT_PLUGINS_ENABLED": "false",
        }
        done = subprocess.run(
            [sys.executable, "-c", UNREACHABLE],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    assert done.returncode == 0, done.stderr
    assert done.stdout == "alive\n"
