"""The very docker-compose.yml, its commands as processes on a real PostgreSQL: trained, retrained,
cancelled, killed.

    make stack        # or: pytest -m stack -s tests/stack/test_stack.py

Takes two to three minutes; a schedule's minute passes while the rest runs. The tests build
on each other, in this order. Skipped, with the reason, where PostgreSQL is not installed.
"""

import base64
import json
import os
import random
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.command_line import write_paragraph

from .compose import SECONDS, Stack, find_postgres

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        find_postgres() is None, reason="PostgreSQL is not installed: apt-get install postgresql"
    ),
]
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
AMPLE = ("--param", "hours=0.02", "--param", 'overrides={"budget.max_steps": 24}')
"""A run that ends by its steps, with time left to register."""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set that the first run has not learned, 300 kB."""
    choose = random.Random(2)
    path = tmp_path_factory.mktemp("text") / "notes.txt"
    path.write_text("\n\n".join(write_paragraph(choose) for _ in range(800)), encoding="utf-8")
    return path


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
            headers |= {
                "Prefect-Csrf-Token": json.load(answer)["token"],
                "Prefect-Csrf-Client": "stack",
            }

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
    deadline = time.monotonic() + SECONDS
    seen = ""
    while True:
        run = ask_prefect(stack, f"/flow_runs/{run_id}")
        if run["state_name"] != seen:
            seen = run["state_name"]
            stack.log(f"{run['name']}: {seen}")
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
        {
            "flow_runs": {"id": {"any_": [run_id]}},
            "task_runs": {"name": {"like_": "Train the model"}},
        },
    ):
        assert time.monotonic() < deadline, stack.read_log("worker")
        time.sleep(0.5)

    stack.log("training has begun")


def find_flow_process(stack: Stack) -> psutil.Process:
    """Return the process that runs the flow: the worker's child."""
    (process,) = psutil.Process(stack.processes["worker"].pid).children()
    return process


def list_versions(stack: Stack) -> list[dict[str, Any]]:
    return json.loads(stack.execute("lightlm", "models", "--json"))["models"]


def read_decision(stack: Stack, run_id: str) -> str:
    """Return what the flow run's page of the decision says, on one line."""
    wanted = {
        "artifacts": {"flow_run_id": {"any_": [run_id]}, "key": {"any_": ["champion-decision"]}}
    }
    (artifact,) = ask_prefect(stack, "/artifacts/filter", wanted)
    return " / ".join(line.strip() for line in artifact["data"].splitlines() if line.strip())


def list_scheduled_retrainings(stack: Stack, state: str) -> list[dict[str, Any]]:
    """Return the retrainings in a state that a schedule has made, the first one first."""
    wanted = {
        "deployments": {"name": {"any_": ["retrain-flow"]}},
        "flow_runs": {"state": {"type": {"any_": [state]}}},
        "sort": "EXPECTED_START_TIME_ASC",
    }
    return [run for run in ask_prefect(stack, "/flow_runs/filter", wanted) if run["auto_scheduled"]]


def test_train_flow_by_its_bare_name_registers_a_version_and_says_why_it_is_or_is_not_champion(
    stack: Stack, text: Path
) -> None:
    run_id = run_deployment(stack, "train-flow", *AMPLE, "--param", f"dataset={text}")
    run = wait_for_state(stack, run_id, set())
    assert run["state_type"] == "COMPLETED", ask_prefect(stack, f"/flow_runs/{run_id}")["state"]
    (version,) = list_versions(stack)
    stack.log(
        f"version {version['version']}, {version['aliases']}: "
        f"{version['tags']['lightlm.promotion']}"
    )
    assert version["tags"]["lightlm.promotion"]
    assert "champion" in version["aliases"]


def test_retrain_flow_learns_a_changed_data_set_and_its_decision_is_the_alias(
    stack: Stack, text: Path
) -> None:
    with text.open("a", encoding="utf-8") as file:
        file.write("\n\nThe quiet river remembers the lantern of the captain, and answers.\n")
    run_id = run_deployment(stack, "retrain-flow", *AMPLE)
    wait_for_state(stack, run_id, {"RUNNING"})
    # Its runs wait until this one has ended, and then find the text unchanged; the last test looks
    # at them.
    said = stack.execute(
        "lightlm", "schedule", "retrain-flow", "--cron", "* * * * *", "--hours", "0.01"
    )

    assert f"data set {text}, 0.01 h (lightlm)" in said
    assert wait_for_state(stack, run_id, set())["state_type"] == "COMPLETED"
    challenger, first = list_versions(stack)
    reason = challenger["tags"]["lightlm.promotion"]
    stack.log(f"version {challenger['version']}, {challenger['aliases']}: {reason}")
    stack.log(f"its page: {read_decision(stack, run_id)}")
    is_promoted = reason.startswith("version 2 is champion instead of 1")
    assert is_promoted or reason.startswith("version 1 stays champion")
    assert ("champion" in challenger["aliases"], "champion" in first["aliases"]) == (
        is_promoted,
        not is_promoted,
    )

    assert ("previous" in first["aliases"]) == is_promoted


def test_generate_flow_writes_with_the_registered_version(stack: Stack) -> None:
    run_id = run_deployment(stack, "generate-flow", "--param", "prompt=The")
    assert wait_for_state(stack, run_id, set())["state_type"] == "COMPLETED"
    written = json.loads(
        stack.execute("lightlm", "generate", "The", "--max-new-tokens", "16", "--json")
    )
    stack.log(f"version {written['model_version']} wrote {written['text']!r}")
    assert written["model_version"] in ("1", "2")
    assert written["num_new_tokens"] > 0


@pytest.mark.faults
def test_a_cancelled_run_ends_cancelled_and_its_processes_with_it(stack: Stack) -> None:
    run_id = run_deployment(stack, "train-flow", "--param", "hours=0.02")
    wait_for_training(stack, run_id)
    family = [find_flow_process(stack)]
    family += family[0].children(recursive=True)
    stack.execute("prefect", "flow-run", "cancel", run_id)
    assert wait_for_state(stack, run_id, set())["state_type"] == "CANCELLED"
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []


@pytest.mark.faults
def test_a_killed_run_is_seen_as_crashed(stack: Stack) -> None:
    before = len(list_versions(stack))
    run_id = run_deployment(stack, "train-flow", "--param", "hours=0.02")
    wait_for_training(stack, run_id)
    family = find_flow_process(stack).children(recursive=True)
    os.kill(find_flow_process(stack).pid, signal.SIGKILL)
    stack.log("killed the flow's process with SIGKILL")
    assert wait_for_state(stack, run_id, set())["state_type"] == "CRASHED"
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []
    assert len(list_versions(stack)) == before


def test_a_schedule_has_fired_by_itself_and_an_unchanged_data_set_is_left_alone(
    stack: Stack,
) -> None:
    deadline = time.monotonic() + SECONDS
    while not (fired := list_scheduled_retrainings(stack, "COMPLETED")):
        assert time.monotonic() < deadline, stack.read_log("worker")
        time.sleep(0.5)

    decision = read_decision(stack, fired[0]["id"])
    due = fired[0]["expected_start_time"]
    stack.log(f"due {due[:19]} by its schedule, {fired[0]['name']}: {decision}")
    assert "is unchanged" in decision

    coming = list_scheduled_retrainings(stack, "SCHEDULED")
    moments = {run["expected_start_time"][:19] for run in coming} | {due[:19]}
    assert len(moments) >= 2
    assert {moment[17:] for moment in moments} == {"00"}
    assert "(lightlm)" not in stack.execute("lightlm", "schedule", "retrain-flow", "--off")
    assert len(list_versions(stack)) == 2


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

    stack.log(f"PostgreSQL holds {rows}")
    assert rows["flow runs"] >= 4
    assert rows["model versions"] == 2
    assert rows["metrics"] > 0
    assert rows["users"] == 1
    assert not list(Path(stack.folder).rglob("mlflow*.db"))
