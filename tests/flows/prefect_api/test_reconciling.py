"""Flow runs of dead processes get their end state in a real Prefect API; those of the living are
left alone; a run without Prefect gets its flow run afterwards.
"""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json, sys
from pathlib import Path
from lightlm_flows.prefect_api.embedded import apply_settings, start_api
home = Path(sys.argv[1])
apply_settings(home)
api = start_api()
api.wait()
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.states import Cancelled, Running
from lightlm_flows.prefect_api.reconciling import UNRECORDED, Unrecorded
from lightlm_flows.prefect_api.reconciling import make_flow_run, note_flow_run, reconcile
from lightlm.runs.naming import name_run
from lightlm.runs.folder import claim_run
from lightlm.params import load_params

@flow
def empty():
    pass

states = {}
with get_client(sync_client=True) as client:
    def begin(hours, how):
        params = load_params(hours=hours)
        run = claim_run(home, name_run(params), params)
        state = Cancelled() if how == "continued without" else Running()
        flow_run = client.create_flow_run(empty, state=state)
        note_flow_run(run, str(flow_run.id), params, "lightlm train")
        if how in ("finished", "continued without"):
            run.end("FINISHED")
        if how != "alive":
            run.close()
        return run, flow_run.id
    kept = {how: begin(hours, how) for hours, how in ((0.1, "died"), (0.2, "finished"), (0.3, "alive"), (0.5, "continued without"))}
    params = load_params(hours=0.4)
    run = claim_run(home, name_run(params), params)
    note_flow_run(run, None, params, "lightlm train")
    # Its process died after Prefect had made the flow run, before it had kept that.
    make_flow_run(client, Unrecorded.model_validate(run.decided(UNRECORDED)))
    run.end("FINISHED")
    run.close()
    # Newer ones, which are looked at first: one that is no such thing, one that Prefect refuses.
    for hours, kept_there in ((0.6, "damaged"), (0.7, {"flow": "a/b", "name": "", "parameters": {}})):
        other = load_params(hours=hours)
        run = claim_run(home, name_run(other), other)
        run.decide(UNRECORDED, kept_there)
        run.close()
    lines = reconcile(home)
    again = reconcile(home)
    for how, (_, flow_run_id) in kept.items():
        states[how] = client.read_flow_run(flow_run_id).state.name
    [late] = [one for one in client.read_flow_runs() if one.name == name_run(params)]
    states[late.name] = late.state.name
    states["hours"] = late.parameters["hours"]
print(json.dumps({"states": states, "lines": len(lines), "again": again}))
"""


def test_the_dead_crash_the_finished_complete_and_the_living_run_on(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = Path(__file__).resolve().parents[3]
    ended = subprocess.run(
        [sys.executable, script, tmp_path / "home"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(root),
            "HOME": str(tmp_path),
            "LIGHTLM_HOME": str(tmp_path / "home"),
        },
        timeout=240,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    expected = (
        '{"states": {"died": "Crashed", "finished": "Completed", "alive": "Running", '
        '"continued without": "Completed", "train-0.4h-wikitext-2-v1": "Completed", "hours": 0.4}, '
        '"lines": 4, "again": []}'
    )
    assert ended.stdout.strip() == expected
