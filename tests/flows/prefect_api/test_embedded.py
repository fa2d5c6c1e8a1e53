"""The embedded Prefect API: its settings, its start, and that it never outlives its owner."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from lightlm.errors import LightLMError
from lightlm_flows.prefect_api.embedded import (
    CONNECT_PAUSE_SECONDS,
    EmbeddedApi,
    apply_settings,
    names_server,
    start_api,
    without_retries,
)

ROOT = Path(__file__).resolve().parents[3]
OWNER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from lightlm_flows.prefect_api.embedded import apply_settings, start_api
apply_settings(Path(sys.argv[2]))
api = start_api()
if sys.argv[3] == "healthy":
    api.wait()
print(api.process.pid, flush=True)
if sys.stdin.readline() == "wait\\n":
    api.wait()
    print("healthy", flush=True)
"""


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take away whatever this machine says about Prefect, and give back what a test changes."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    for name in ("DO_NOT_TRACK", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ) | {"HOME": str(tmp_path)})
    monkeypatch.chdir(tmp_path)


def wait_until(is_true: Callable[[], bool], seconds: float = 60) -> bool:
    """Return whether `is_true` became true; `seconds` only bounds a failure."""
    deadline = time.monotonic() + seconds
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return is_true()


def is_gone(pid: int) -> bool:
    """Return whether a process has ended, buried or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def start_owner(folder: Path, state: str) -> tuple["subprocess.Popen[str]", int]:
    """Return a process that owns an embedded API ("started" or "healthy"), and the API's pid."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(ROOT), str(folder), state],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    return owner, int(owner.stdout.readline())


def test_a_bare_machine_names_no_server() -> None:
    assert not names_server()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (".env", "A=1\nPREFECT_API_URL=http://example.test/api\n"),
        ("prefect.toml", '[api]\nurl = "http://example.test/api"\n'),
        ("pyproject.toml", '[tool.prefect.api]\nurl = "http://example.test/api"\n'),
        (
            ".prefect/profiles.toml",
            'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "http://example.test/api"\n',
        ),
    ],
)
def test_a_server_is_found_wherever_prefect_would_find_it(
    name: str, content: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content, encoding="utf-8")
    assert names_server()


def test_a_profile_that_is_not_active_does_not_count(tmp_path: Path) -> None:
    (tmp_path / ".prefect").mkdir()
    (tmp_path / ".prefect" / "profiles.toml").write_text(
        'active = "local"\n[profiles.local]\n[profiles.far]\nPREFECT_API_URL = "http://x/api"\n',
        encoding="utf-8",
    )
    assert not names_server()


def test_settings_leave_alone_what_the_environment_says(tmp_path: Path) -> None:
    os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "7"
    apply_settings(tmp_path / "not" / "yet")
    assert os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] == "7"
    assert os.environ["PREFECT_HOME"] == str(tmp_path / "not" / "yet" / "prefect")
    assert Path(os.environ["PREFECT_HOME"]).is_dir()
    assert os.environ["DO_NOT_TRACK"] == "true"
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


@pytest.mark.parametrize(
    ("record", "port"),
    [(None, 4200), ("{", 4200), ('{"prefect_port": 4231, "mlflow_port": 5031}', 4231)],
)
def test_links_lead_to_the_pages_of_the_service_that_was_started(
    record: str | None, port: int, tmp_path: Path
) -> None:
    if record is not None:
        (tmp_path / "service").mkdir()
        (tmp_path / "service" / "service.json").write_text(record, encoding="utf-8")
    apply_settings(tmp_path)
    assert os.environ["PREFECT_UI_URL"] == f"http://127.0.0.1:{port}"


def test_a_named_server_is_left_to_prefect(tmp_path: Path) -> None:
    os.environ["PREFECT_API_URL"] = "http://example.test/api"
    apply_settings(tmp_path)
    assert start_api() is None
    assert os.environ["PREFECT_API_URL"] == "http://example.test/api"
    assert "PREFECT_HOME" not in os.environ
    assert "PREFECT_API_AUTH_STRING" not in os.environ


@pytest.mark.faults
def test_commands_that_start_together_on_a_fresh_database_all_get_their_api(tmp_path: Path) -> None:
    owners = [start_owner(tmp_path, "started")[0] for _ in range(3)]
    for owner in owners:
        assert owner.stdin is not None
        owner.stdin.write("wait\n")
        owner.stdin.flush()
    assert [owner.communicate()[0].strip() for owner in owners] == ["healthy"] * 3


@pytest.mark.parametrize("state", ["started", "healthy"])
def test_the_api_ends_when_its_owner_is_killed(state: str, tmp_path: Path) -> None:
    owner, pid = start_owner(tmp_path, state)
    os.kill(owner.pid, signal.SIGKILL)
    owner.communicate()
    assert wait_until(lambda: is_gone(pid))


def test_the_api_ends_when_its_owner_ends(tmp_path: Path) -> None:
    owner, pid = start_owner(tmp_path, "healthy")
    owner.communicate("")
    assert owner.returncode == 0
    assert wait_until(lambda: is_gone(pid))


def test_an_api_that_dies_at_its_start_says_its_last_words() -> None:
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", "raise SystemExit('no room for a database')"],
            stdin=subprocess.PIPE,
            stderr=errors,
        )
        with pytest.raises(LightLMError, match=r"ended with exit code 1.*no room for a database"):
            EmbeddedApi(process, 9, errors).wait(60)


def test_an_api_that_never_answers_is_given_up_and_ended() -> None:
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"],
            stdin=subprocess.PIPE,
            stderr=errors,
        )
        with pytest.raises(LightLMError, match="is too slow"):
            EmbeddedApi(process, 9, errors).wait(0.2)
        assert process.returncode is not None


def test_a_request_to_an_api_that_is_gone_waits_hardly_between_its_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import httpx
    from prefect.client.orchestration import SyncPrefectClient

    pauses: list[float] = []
    monkeypatch.setattr("httpcore._backends.base.time.sleep", pauses.append)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with (
        without_retries(),
        SyncPrefectClient(f"http://127.0.0.1:{port}/api") as client,
        pytest.raises(httpx.ConnectError),
    ):
        client.read_flow_runs(limit=1)

    assert len(pauses) == 3  # Prefect has the transport connect again so often
    assert sum(pauses) <= 4 * CONNECT_PAUSE_SECONDS
