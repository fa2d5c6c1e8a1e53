"""The key of `lightlm serve`: where it comes from, who reads it, and where it never shows."""

import os
import socket
import stat
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from lightlm.errors import InputError
from lightlm_flows.cli.main import app
from lightlm_flows.service.api_key import find_given_key, name_key_file, open_own_key
from tests.command_line import CommandLine

KEY = "a-key-for-tests"


def test_a_key_comes_from_the_option_the_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}-file\n")
    environment = {"LIGHTLM_API_KEY": f"{KEY}-environment"}
    assert find_given_key(f"{KEY}-option", file, environment) == f"{KEY}-option"
    assert find_given_key(None, file, environment) == f"{KEY}-file"
    assert find_given_key(None, None, environment) == f"{KEY}-environment"
    assert find_given_key(None, None, {"LIGHTLM_API_KEY": ""}) is None


@pytest.mark.parametrize(
    "key", ["short", "with spaces in it", "non-ascii-ключ", "line\nbreak-and-more"]
)
def test_a_key_that_is_guessed_or_that_no_header_holds_is_refused(key: str) -> None:
    with pytest.raises(InputError, match="12 or more printable characters") as caught:
        find_given_key(key, None, {})
    assert key not in str(caught.value)


def test_a_file_that_cannot_be_read_or_is_empty_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the key's file"):
        find_given_key(None, tmp_path / "none", {})
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(InputError, match="is empty"):
        find_given_key(None, tmp_path / "empty", {})


def test_the_own_key_is_made_once_for_its_owner_alone(home: Path) -> None:
    key = open_own_key(home)
    assert len(key) >= 40
    assert open_own_key(home) == key
    assert stat.S_IMODE(name_key_file(home).stat().st_mode) == 0o600
    assert stat.S_IMODE(name_key_file(home).parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "set LIGHTLM_API_KEY"),
        (["--host", "0.0.0.0", "--api-key-file", "KEY"], "--allowed-hosts HOST:PORT"),
        (["--allowed-hosts", "*:8000"], "names no host"),
    ],
)
def test_a_server_that_others_reach_needs_a_key_and_host_names(
    options: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LIGHTLM_API_KEY", raising=False)
    (tmp_path / "key").write_text(KEY)
    given = [str(tmp_path / "key") if word == "KEY" else word for word in options]
    ended = CliRunner().invoke(app, ["serve", *given])
    assert isinstance(ended.exception, InputError)
    assert words in str(ended.exception)


def test_a_taken_port_is_said_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = CliRunner().invoke(app, ["serve", "--port", str(taken.getsockname()[1])])
    assert isinstance(ended.exception, InputError)
    assert "--port" in str(ended.exception)


def test_a_key_on_the_command_line_leaves_it_and_shows_nowhere(
    make_command_line: "type[CommandLine]",
) -> None:
    lightlm = make_command_line()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = lightlm.start("serve", "--port", port, "--api-key", KEY)
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "Serving" in line:
                break
        words = psutil.Process(process.pid).cmdline()
    finally:
        process.terminate()
        rest = process.communicate(timeout=60)
    assert "serve" in words
    assert KEY not in " ".join(words)
    shown = "".join([*lines, *(part or "" for part in rest)])
    assert "Serving no model yet on http://127.0.0.1" in shown
    assert KEY not in shown
    assert os.sep + "api-key" not in shown
