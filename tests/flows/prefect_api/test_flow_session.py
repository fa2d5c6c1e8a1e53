"""Tests of a flow that a person stops: its end in a real Prefect API, and the error here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lightlm.errors import Interrupted
from lightlm_flows.prefect_api.flow_session import cancel_when_stopped

SCRIPT = """
import json, sys
from pathlib import Path
from lightlm_flows.prefect_api.embedded import apply_settings, start_api
apply_settings(Path(sys.argv[1]))
api = start_api()
api.wait()
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.exceptions import CancelledRun
from lightlm.errors import Interrupted, TrainingError
from lightlm_flows.prefect_api.flow_session import cancel_when_stopped

def train(error):
    raise {"request": Interrupted("stopped at step 5"), "ctrl-c": KeyboardInterrupt,
           "fault": TrainingError("no space")}[error]

raised = {}
for error in ("request", "ctrl-c", "fault"):
    try:
        flow(cancel_when_stopped(train), name=error)(error)
    except (CancelledRun, TrainingError) as caught:
        raised[error] = [type(caught).__name__, str(caught)]
with get_client(sync_client=True) as client:
    states = {}
    for run in client.read_flow_runs():
        states[client.read_flow(run.flow_id).name] = [run.state.name, run.state.message]
print(json.dumps({"raised": raised, "states": states}))
"""


def test_what_a_person_stopped_is_cancelled_and_what_broke_has_failed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    ended = subprocess.run(
        [sys.executable, script, tmp_path / "home"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(Path(__file__).resolve().parents[3]),
            "HOME": str(tmp_path),
            "LIGHTLM_HOME": str(tmp_path / "home"),
        },
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr

    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["raised"] == {
        "request": ["CancelledRun", "stopped at step 5"],
        "ctrl-c": ["CancelledRun", "stopped; run the same command again to go on"],
        "fault": ["TrainingError", "no space"],
    }

    states = found["states"]
    assert states["request"] == ["Cancelled", "stopped at step 5"]
    assert states["ctrl-c"] == ["Cancelled", "stopped; run the same command again to go on"]
    assert states["fault"][0] == "Failed"


def test_without_prefect_the_stop_itself_is_raised() -> None:
    @cancel_when_stopped
    def train() -> None:
        raise Interrupted("stopped at step 5")

    with pytest.raises(Interrupted, match="stopped at step 5"):
        train()
