"""Every call that MLflow registers is on LightLM's list and asks for a password, or is answered 404
before MLflow.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lightlm.tracking.mlflow_routes import ALLOWED, AllowedCalls, is_allowed, list_origins
from lightlm_flows.service.private_files import make_private_folder
from lightlm_flows.service.servers import ServerStart, name_service_folder, start_of, start_of_pages
from tests.stack.compose import read_compose

PROFILES = ("ui", "up", "compose")
OPEN = {"/health", "/version", "/static-files/<path:path>"} | {
    f"/{api}/3.0/mlflow/server-info" for api in ("api", "ajax-api")
}
"""What MLflow answers without a password: that it lives, what it can do, and the code of
its pages.
"""

REFUSED_FAMILIES = re.compile(
    r"/(ajax-)?api/3\.0/mlflow/(assistant|gateway|jobs|mcp-servers|scorers?|datasets|issues|label-schemas"
    r"|review-queues|roles|workspaces|prompt-optimization|genai|demo|ui-telemetry)(/.*)?"
    r"|/(ajax-)?api/3\.0/mlflow/users/(permissions|roles)/\w+"
    r"|/(ajax-)?api/2\.0/mlflow/(webhooks|gateway-proxy)(/.*)?"
    r"|/(ajax-)?api/2\.0/mlflow/(upload-artifact|unified-traces|get-online-trace-details|users/create-ui"
    r"|runs/create-promptlab-run|traces/link-prompts|artifacts/presigned-\w+-url)"
    r"|/ajax-api/3\.0/jobs/.*|/gateway/.*|/signup|/build/<path:filename>|/(ajax-)?api/2\.0mlflow/.*"
)
"""What of MLflow LightLM has no use for. A call that is neither here nor allowed is new: decide
where it belongs.
"""


def is_of_no_use(method: str, rule: str) -> bool:
    return (method, rule) == ("GET", "/graphql") or REFUSED_FAMILIES.fullmatch(rule) is not None


def start_profile(profile: str, home: Path) -> ServerStart:
    """Return how one of the three ways starts MLflow; compose's database is a local one here."""
    make_private_folder(name_service_folder(home))
    if profile == "ui":
        return start_of_pages(home, 5000)
    if profile == "up":
        return start_of("mlflow", home, "127.0.0.1", 5000, (), {})

    secrets = ("POSTGRES_PASSWORD", "PREFECT_PASSWORD", "MLFLOW_PASSWORD", "MLFLOW_SESSION_KEY")
    service = read_compose(dict.fromkeys(secrets, "x" * 20))["mlflow"]
    words = service["command"]
    host, names = (words[words.index(option) + 1] for option in ("--host", "--allowed-hosts"))
    given = {
        name: value
        for name, value in service["environment"].items()
        if value and "postgresql" not in value
    }

    given |= {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{home / 'mlflow.db'}"}
    return start_of("mlflow", home, host, 5000, names.split(","), given)


@pytest.fixture(scope="module")
def answers(
    tmp_path_factory: pytest.TempPathFactory, new_database: Path
) -> dict[str, list[dict[str, Any]]]:
    homes = {profile: tmp_path_factory.mktemp(profile) for profile in PROFILES}
    for folder in homes.values():
        (folder / "mlflow.db").write_bytes(new_database.read_bytes())
    first = finish(walk(PROFILES[0], homes[PROFILES[0]]))
    # Creating MLflow's users takes longer than the walk.
    for profile in PROFILES[1:]:
        make_private_folder(name_service_folder(homes[profile]))
        shutil.copy(homes[PROFILES[0]] / "service" / "mlflow-users.db", homes[profile] / "service")
    others = {profile: walk(profile, homes[profile]) for profile in PROFILES[1:]}
    return {PROFILES[0]: first} | {profile: finish(process) for profile, process in others.items()}


def walk(profile: str, home: Path) -> "subprocess.Popen[str]":
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        start = start_profile(profile, home)

    command = [
        sys.executable,
        str(Path(__file__).with_name("walk_mlflow.py")),
        ",".join(start.names),
    ]
    environment = os.environ | start.environment

    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: "subprocess.Popen[str]") -> list[dict[str, Any]]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err[-2000:]
    return json.loads(out)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_call_is_on_the_list_or_never_reaches_mlflow(
    answers: dict[str, list[dict[str, Any]]], profile: str
) -> None:
    found = answers[profile]
    assert len(found) > 400
    reaching = {(answer["method"], answer["rule"]) for answer in found if answer["reaches_mlflow"]}
    assert reaching == ALLOWED, "the list names exactly what MLflow has and LightLM lets through"


@pytest.mark.parametrize("profile", PROFILES)
def test_a_call_that_a_new_mlflow_brings_has_to_be_decided_on(
    answers: dict[str, list[dict[str, Any]]], profile: str
) -> None:
    refused = [
        (answer["method"], answer["rule"])
        for answer in answers[profile]
        if not answer["reaches_mlflow"]
    ]
    assert [call for call in refused if not is_of_no_use(*call)] == []
    assert [call for call in ALLOWED if is_of_no_use(*call)] == []


@pytest.mark.parametrize("profile", PROFILES)
def test_every_call_on_the_list_asks_for_a_password(
    answers: dict[str, list[dict[str, Any]]], profile: str
) -> None:
    reached = [
        answer
        for answer in answers[profile]
        if answer["reaches_mlflow"] and answer["rule"] not in OPEN
    ]
    assert [answer for answer in reached if answer["status"] != 401] == []


def test_a_path_that_only_looks_like_one_on_the_list_is_refused() -> None:
    assert is_allowed("GET", "/api/2.0/mlflow/runs/get")
    assert is_allowed("HEAD", "/health")
    for method, path in [
        ("DELETE", "/api/2.0/mlflow/runs/get"),
        ("OPTIONS", "/api/2.0/mlflow/runs/get"),
        ("GET", "/api/2.0/mlflow/runs/get/"),
        ("GET", "//api/2.0/mlflow/runs/get"),
        ("GET", "/API/2.0/mlflow/runs/get"),
        ("GET", "/api/2x0/mlflow/runs/get"),
        ("GET", "/x/api/2.0/mlflow/runs/get"),
        ("GET", "/api/2.0/mlflow/logged-models/"),
        ("TRACE", "/"),
    ]:
        assert not is_allowed(method, path), (method, path)


def test_the_origins_are_those_of_the_servers_own_pages() -> None:
    assert list_origins(["localhost:5000", "models.example:443"]) == {
        "http://localhost:5000",
        "https://localhost:5000",
        "http://models.example:443",
        "https://models.example",
    }


def test_a_websocket_is_closed_before_mlflow_sees_it() -> None:
    sent: list[Any] = []

    async def reach(*_: Any) -> Any:
        raise AssertionError("MLflow was reached")

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(
        AllowedCalls(reach, [])({"type": "websocket", "path": "/", "headers": []}, reach, send)
    )
    assert sent == [{"type": "websocket.close", "code": 1008}]
