"""Both servers boot with the versions that are installed, and answer a real call beside /health.

/health alone lies: an MLflow that refuses every host name answers 200 there, and a FastAPI too new
for Prefect lets `pip check` pass while no flow starts.
"""

import base64
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
FLOW = """
import json, os, sys, urllib.request
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from lightlm_flows.prefect_api.embedded import apply_settings, start_api, without_heartbeats
apply_settings(Path(sys.argv[2]))
api = start_api()
from prefect import flow, task
assert "prefect.server.api.server" not in sys.modules
@task
def add(a: int, b: int) -> int:
    return a + b
@flow(name="addition")
def addition() -> int:
    from prefect.runtime import flow_run
    print(flow_run.id, add(1, 2), flush=True)
api.wait()
with without_heartbeats():
    addition()
assert "prefect.server.api.server" not in sys.modules
print(api.url, os.environ["PREFECT_API_AUTH_STRING"], flush=True)
sys.stdin.read()
"""


def ask(url: str, body: dict[str, Any] | None = None, password: str = "") -> Any:
    """Return the JSON answer of a server; a POST where there is a body."""
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    if password:
        request.add_header("Authorization", f"Basic {base64.b64encode(password.encode()).decode()}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        content = answer.read()
    return json.loads(content) if content.startswith((b"{", b"[")) else content.decode()


def bare_environment(**more: str) -> dict[str, str]:
    """Return the environment without what this machine says about the two servers."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW"))}
    return kept | {"DO_NOT_TRACK": "true"} | more


@pytest.fixture
def mlflow_url(tmp_path: Path) -> Iterator[str]:
    """Serve MLflow on SQLite, one worker, without its job runner; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    store = f"sqlite:///{tmp_path}/mlflow.db"
    words = "-m mlflow server --workers 1 --host 127.0.0.1"
    where = [
        "--port",
        str(port),
        "--backend-store-uri",
        store,
        "--artifacts-destination",
        f"{tmp_path}/artifacts",
    ]

    server = subprocess.Popen(
        [sys.executable, *words.split(), *where],
        env=bare_environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )

    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 180
    while True:
        try:
            ask(f"{url}/health")
            break
        except OSError:
            alive = server.poll() is None and time.monotonic() < deadline
            assert alive, server.communicate()[1].decode()[-2000:]
            time.sleep(0.1)

    yield url
    server.terminate()
    server.communicate(timeout=60)


def test_a_flow_runs_on_the_embedded_api_which_knows_it_and_lets_nobody_else_in(
    tmp_path: Path,
) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", FLOW, str(ROOT), str(tmp_path / "home")],
        env=bare_environment(HOME=str(tmp_path)),
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    assert owner.stdout is not None
    run_id, total = owner.stdout.readline().split()
    url, password = owner.stdout.readline().split()
    assert total == "3"
    assert ask(f"{url}/health") == "true"
    run = ask(f"{url}/flow_runs/{run_id}", password=password)
    assert run["state"]["type"] == "COMPLETED"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask(f"{url}/flow_runs/{run_id}")

    owner.communicate("")
    assert owner.returncode == 0
    assert (tmp_path / "home" / "prefect" / "prefect.db").is_file()


def test_an_mlflow_server_is_healthy_and_keeps_an_experiment(mlflow_url: str) -> None:
    api = f"{mlflow_url}/api/2.0/mlflow/experiments"
    created = ask(f"{api}/create", {"name": "lightlm"})
    found = ask(f"{api}/get?experiment_id={created['experiment_id']}")
    assert found["experiment"]["name"] == "lightlm"
