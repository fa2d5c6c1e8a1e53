"""`lightlm studio` as a person starts it."""

import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from typer.testing import CliRunner

from lightlm.errors import InputError
from lightlm.studio.sessions import TOKEN_HEADER
from lightlm_flows.cli.main import app
from lightlm_flows.service.api_key import name_key_file
from tests.command_line import CommandLine
from tests.studio.conftest import SECONDS


@pytest.fixture(scope="module")
def started(
    make_command_line: Callable[[], CommandLine],
) -> "Iterator[tuple[CommandLine, subprocess.Popen[str], str, str]]":
    """Return a home, its studio's process and address, and what it printed."""
    lightlm = make_command_line()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    process = lightlm.start("studio", "--port", port)
    assert process.stderr is not None
    first, second = (process.stderr.readline() for _ in range(2))
    yield lightlm, process, f"http://127.0.0.1:{port}", first + second
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=SECONDS)
    assert "Traceback" not in err


def test_a_log_gets_the_address_and_where_the_key_is_and_no_secret(
    started: "tuple[CommandLine, subprocess.Popen[str], str, str]",
) -> None:
    lightlm, _, url, said = started
    key = name_key_file(lightlm.home).read_text().strip()
    assert f"The studio is on {url} (Ctrl-C ends it)" in said
    assert str(name_key_file(lightlm.home)) in said
    assert key not in said
    assert "ticket" not in said


def test_the_keys_owner_gets_in_and_the_process_has_no_torch(
    started: "tuple[CommandLine, subprocess.Popen[str], str, str]",
) -> None:
    lightlm, process, url, _ = started
    key = name_key_file(lightlm.home).read_text().strip()
    with httpx.Client(base_url=url, headers={"Origin": url}, timeout=SECONDS) as client:
        assert "LightLM studio" in client.get("/").text
        token = client.post("/api/login", json={"key": key}).json()["token"]
        headers = {TOKEN_HEADER: token}
        for path in ("/api/state", "/api/runs", "/api/models"):
            assert client.get(path, headers=headers).status_code == 200
    if Path(f"/proc/{process.pid}").is_dir():
        maps = [one.path for one in psutil.Process(process.pid).memory_maps()]
        assert any("pydantic" in path for path in maps)
        assert not any("torch" in path for path in maps)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "set LIGHTLM_API_KEY"),
        (["--allowed-hosts", "*:8700"], "names no host"),
    ],
)
def test_a_studio_that_others_reach_needs_a_key_and_host_names(
    options: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LIGHTLM_API_KEY", raising=False)
    ended = CliRunner().invoke(app, ["studio", *options])
    assert isinstance(ended.exception, InputError)
    assert words in str(ended.exception)
