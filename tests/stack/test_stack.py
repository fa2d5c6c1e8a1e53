"""The very docker-compose.yml, its commands as processes on a real PostgreSQL: trained, generated, cancelled, killed.

    make stack        # or: pytest -m stack -s tests/stack/test_stack.py

Takes about three minutes. Skipped, with the reason, where PostgreSQL is not installed.
"""

import base64
import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from .compose import SECONDS, Stack, find_postgres

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_postgres() is None, reason="PostgreSQL is not installed: apt-get install postgresql"),
]
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack"))
    try:
        stack.start_all()
        yield stack
    finally:
        stack.stop_all()


def ask_prefect(stack: Stack, path: str, body: dict[str, Any] | None = None) -> Any:
    """Return Prefect's answer; a GET, or a POST where there is a body."""
    environment = stack.environment("worker")
    credentials = base64.b64encode(environment["PREFECT_API_AUTH_STRING"].encode()).decode()
    headers = {"Authorization": f"Basic {credentials}", "Content-Type": "application/json"}
    url = environment["PREFECT_API_URL"]
    if body is not None:
        token = urllib.request.Request(f"{url}/csrf-token?client=stack", headers=headers)
        with urllib.request.urlopen(token, timeout=30) as answer:
            headers |= {"Prefect-Csrf-Token": json.load(answer)["token"], "Prefect-Csrf-Client": "stack"}
    request = urllib.request.Request(
        f"{url}{path}", None if body is None else json.dumps(body).encode(), headers=headers
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def run_deployment(stack: Stack, *words: str) -> str:
    """Run `prefect deployment run WORDS`; return the flow run's id."""
    return stack.execute("prefect", "deployment", "run", *words).split("UUID: ")[1].split()[0]


def wait_for_state(stack: Stack, run_id: str, wanted: set[str]) -> dict[str, Any]:
    """Return the flow run when its state is one of `wanted`, or it has ended."""
    deadline, seen = time.monotonic() + SECONDS, ""
    while True:
        run = ask_prefect(stack, f"/flow_runs/{run_id}")
        if run["state_name"] != seen:
            seen = run["state_name"]
            stack.say(f"{run['name']}: {seen}")
        if run["state_type"] in wanted | ENDED:
            return run
        assert time.monotonic() < deadline, stack.read_log("worker")
        time.sleep(0.5)


def wait_for_training(stack: Stack, run_id: str) -> None:
    """Return when the flow run's training has begun."""
    deadline = time.monotonic() + SECONDS
    while not ask_prefect(
        stack,
        "/task_runs/filter",
        {"flow_runs": {"id": {"any_": [run_id]}}, "task_runs": {"name": {"like_": "Train the model"}}},
    ):
        assert time.monotonic() < deadline, stack.read_log("worker")
        time.sleep(0.5)
    stack.say("training has begun")


def find_flow_process(stack: Stack) -> psutil.Process:
    """Return the process that runs the flow: the worker's child."""
    (process,) = psutil.Process(stack.processes["worker"].pid).children()
    return process


def list_versions(stack: Stack) -> list[dict[str, Any]]:
    return json.loads(stack.execute("lightlm", "models", "--json"))["models"]


def test_train_flow_by_its_bare_name_registers_a_version_and_says_why_it_is_or_is_not_champion(stack: Stack) -> None:
    run_id = run_deployment(stack, "train-flow", "--param", "hours=0.01")
    run = wait_for_state(stack, run_id, set())
    assert run["state_type"] == "COMPLETED", ask_prefect(stack, f"/flow_runs/{run_id}")["state"]
    (version,) = list_versions(stack)
    stack.say(f"version {version['version']}, {version['aliases']}: {version['tags']['lightlm.promotion']}")
    assert version["tags"]["lightlm.promotion"]
    assert "champion" in version["aliases"]


def test_generate_flow_writes_with_the_registered_version(stack: Stack) -> None:
    run_id = run_deployment(stack, "generate-flow", "--param", "prompt=The")
    assert wait_for_state(stack, run_id, set())["state_type"] == "COMPLETED"
    written = json.loads(stack.execute("lightlm", "generate", "The", "--max-new-tokens", "16", "--json"))
    stack.say(f"version {written['model_version']} wrote {written['text']!r}")
    assert written["model_version"] == "1"
    assert written["num_new_tokens"] > 0


def test_a_cancelled_run_ends_cancelled_and_its_processes_with_it(stack: Stack) -> None:
    run_id = run_deployment(stack, "train-flow", "--param", "hours=0.05")
    wait_for_training(stack, run_id)
    family = [find_flow_process(stack)]
    family += family[0].children(recursive=True)
    stack.execute("prefect", "flow-run", "cancel", run_id)
    assert wait_for_state(stack, run_id, set())["state_type"] == "CANCELLED"
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []


def test_a_killed_run_is_seen_as_crashed(stack: Stack) -> None:
    run_id = run_deployment(stack, "train-flow", "--param", "hours=0.05")
    wait_for_training(stack, run_id)
    family = find_flow_process(stack).children(recursive=True)
    os.kill(find_flow_process(stack).pid, signal.SIGKILL)
    stack.say("killed the flow's process with SIGKILL")
    assert wait_for_state(stack, run_id, set())["state_type"] == "CRASHED"
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []
    assert len(list_versions(stack)) == 1


def test_it_all_stands_in_postgresql(stack: Stack) -> None:
    import psycopg

    def count(database: str, table: str) -> int:
        where = f"host=127.0.0.1 port={stack.ports['postgres']} user=lightlm dbname={database}"
        with psycopg.connect(f"{where} password={stack.secret['POSTGRES_PASSWORD']}") as connection:
            row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return row[0] if row else 0

    rows = {
        "flow runs": count("prefect", "flow_run"),
        "model versions": count("mlflow", "model_versions"),
        "metrics": count("mlflow", "metrics"),
        "users": count("mlflow_users", "users"),
    }
    stack.say(f"PostgreSQL holds {rows}")
    assert rows["flow runs"] == 4
    assert rows["model versions"] == 1
    assert rows["metrics"] > 0
    assert rows["users"] == 1
    assert not list(Path(stack.folder).rglob("mlflow*.db"))
