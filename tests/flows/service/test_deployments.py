"""`lightlm deploy` against a real API: flows run by the bare name; a second time takes nothing
away; other pools.
"""

import base64
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lightlm.errors import InputError
from lightlm.store.home import find_home
from lightlm_flows.cli.commands.service import read_variables
from lightlm_flows.service.schedules import schedule_flow

ROOT = Path(__file__).resolve().parents[3]
SERVE = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from lightlm_flows.prefect_api.embedded import apply_settings, start_api
apply_settings(Path(sys.argv[2]))
api = start_api()
api.wait()
print(api.url, os.environ["PREFECT_API_AUTH_STRING"], flush=True)
sys.stdin.read()
"""

Prefect = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    home = tmp_path_factory.mktemp("prefect")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW"))}
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(ROOT), str(home)],
        env=kept | {"PREFECT_PROFILES_PATH": str(home / "none.toml")},
        cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip

    assert server.stdout is not None
    url, password = server.stdout.readline().split()
    environment = kept | {
        "PREFECT_API_URL": url,
        "PREFECT_API_AUTH_STRING": password,
        "PREFECT_HOME": str(home / "client"),
        "PREFECT_PROFILES_PATH": str(home / "none.toml"),
        "LIGHTLM_HOME": str(home),
        "DO_NOT_TRACK": "true",
        "NO_PROXY": "127.0.0.1",
        "COLUMNS": "200",
    }

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        program, *words = (
            arguments if arguments[0] == "lightlm" else ("prefect", "--no-prompt", *arguments)
        )
        return subprocess.run(
            [str(Path(sys.executable).with_name(program)), *words],
            env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    deployed = run("lightlm", "deploy")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    run.environment = environment  # pyright: ignore[reportFunctionMemberAccess]
    yield run
    server.communicate("")


def test_train_flow_is_run_by_its_bare_name(prefect: Prefect) -> None:
    done = prefect("deployment", "run", "train-flow", "--param", "hours=0.1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "train-flow/train-flow" in done.stdout
    assert "'hours': 0.1" in done.stdout


def test_the_slashed_name_works_too(prefect: Prefect) -> None:
    done = prefect("deployment", "run", "generate-flow/generate-flow", "--param", "prompt=Once")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("wrong", ["hours=-1", "hours=abc", "hours=1e9", "lr=3"])
def test_a_wrong_parameter_is_refused_when_it_is_submitted(prefect: Prefect, wrong: str) -> None:
    done = prefect("deployment", "run", "train-flow", "--param", wrong)
    assert done.returncode != 0
    assert wrong.partition("=")[0] in done.stdout + done.stderr


def test_an_unknown_name_is_refused(prefect: Prefect) -> None:
    done = prefect("deployment", "run", "no-such-flow")
    assert done.returncode != 0
    assert "not found" in done.stdout + done.stderr


def test_the_schedule_is_shipped_inactive(prefect: Prefect) -> None:
    done = prefect("deployment", "schedule", "ls", "train-flow/train-flow")
    assert done.returncode == 0, done.stderr
    assert "0 3 * * *" in done.stdout
    assert "True" not in done.stdout


def read_deployment(prefect: Prefect, name: str) -> dict[str, Any]:
    """Return a deployment as the API has it: `prefect deployment inspect -o json` fails over
    automations (3.8.8).
    """
    environment = prefect.environment  # pyright: ignore[reportFunctionMemberAccess]
    request = urllib.request.Request(
        f"{environment['PREFECT_API_URL']}/deployments/name/{name}/{name}"
    )
    credentials = base64.b64encode(environment["PREFECT_API_AUTH_STRING"].encode()).decode()
    request.add_header("Authorization", f"Basic {credentials}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_every_parameter_of_every_form_has_a_type_and_a_description(prefect: Prefect) -> None:
    for name in ("train-flow", "generate-flow", "retrain-flow"):
        properties = read_deployment(prefect, name)["parameter_openapi_schema"]["properties"]
        assert len(properties) >= 3
        bare = [key for key, value in properties.items() if not value.get("description")]
        assert bare == [], name
        assert all(
            {"type", "anyOf", "allOf", "$ref"} & set(value) for value in properties.values()
        ), name


def test_two_trainings_wait_for_each_other(prefect: Prefect) -> None:
    for name in ("train-flow", "retrain-flow"):
        deployment = read_deployment(prefect, name)
        assert deployment["global_concurrency_limit"]["limit"] == 1
        assert deployment["concurrency_options"]["collision_strategy"] == "ENQUEUE"


def test_a_changed_data_set_and_a_silent_run_have_an_automation_each(prefect: Prefect) -> None:
    listed = prefect("automation", "ls").stdout
    assert "retrain-on-changed-data-set" in listed
    assert "lightlm-crash-zombies" in listed


def test_a_second_deployment_keeps_schedules_and_doubles_nothing(prefect: Prefect) -> None:
    name = "retrain-flow"
    added = prefect(
        "deployment",
        "schedule",
        "create",
        f"{name}/{name}",
        "--cron",
        "7 7 * * *",
        "--timezone",
        "UTC",
    )

    assert added.returncode == 0, added.stdout + added.stderr
    nightly = next(s for s in read_deployment(prefect, name)["schedules"] if s["slug"] == "nightly")
    assert (
        prefect("deployment", "schedule", "resume", f"{name}/{name}", nightly["id"]).returncode == 0
    )
    assert prefect("lightlm", "deploy").returncode == 0
    schedules = read_deployment(prefect, name)["schedules"]
    assert sorted((s["schedule"]["cron"], s["active"]) for s in schedules) == [
        ("0 4 * * *", True),
        ("7 7 * * *", True),
    ]

    automations = prefect("automation", "ls").stdout
    assert automations.count("retrain-on-changed-data-set") == 1
    assert automations.count("lightlm-crash-zombies") == 1


@pytest.mark.parametrize(
    ("kind", "given", "wanted"),
    [
        (
            "docker",
            "mem_limit=8g",
            {"image": "lightlm:cpu", "mem_limit": "8g", "volumes": ["lightlm_data:/data"]},
        ),
        pytest.param(
            "kubernetes",
            "namespace=research",
            {"image": "lightlm:cpu", "namespace": "research", "finished_job_ttl": 3600},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_flows_are_deployed_to_containers_with_typed_variables(
    prefect: Prefect, kind: str, given: str, wanted: dict[str, Any]
) -> None:
    pool = f"lightlm-{kind}"
    done = prefect(
        "lightlm", "deploy", "--pool", pool, "--pool-type", kind, "--job-variable", given
    )
    assert done.returncode == 0, done.stdout + done.stderr
    deployment = read_deployment(prefect, "train-flow")
    assert deployment["work_pool_name"] == pool
    assert {name: deployment["job_variables"][name] for name in wanted} == wanted
    assert deployment["job_variables"]["env"]["PREFECT_LOGGING_EXTRA_LOGGERS"] == "lightlm"


def test_a_pool_of_another_type_is_refused_in_one_line(prefect: Prefect) -> None:
    done = prefect("lightlm", "deploy", "--pool-type", "docker")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "is of type process" in done.stderr


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        ("process", "image=x", "image"),
        ("docker", "auto_remove=perhaps", "auto_remove"),
        ("docker", "image=../x", "image"),
        ("kubernetes", "finished_job_ttl=-1", "finished_job_ttl"),
        ("docker", "novalue", "novalue"),
    ],
)
def test_a_job_variable_that_the_pool_does_not_have_is_refused(
    kind: str, given: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        read_variables(kind, [given])


def test_a_schedule_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="at noon"):
        schedule_flow(find_home(), "train-flow", "at noon", "UTC", {})
