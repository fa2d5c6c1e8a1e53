"""prefect.yaml is deployed to a real API, and its flows are run by the bare name, as the README says."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVE = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from flows.embedded import apply_settings, start_api
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
        "DO_NOT_TRACK": "true",
        "NO_PROXY": "127.0.0.1",
        "COLUMNS": "200",
    }

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(Path(sys.executable).with_name("prefect")), "--no-prompt", *arguments],
            env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    created = run("work-pool", "create", "lightlm", "--type", "process")
    assert created.returncode == 0, created.stderr
    deployed = run("deploy", "--all")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
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
