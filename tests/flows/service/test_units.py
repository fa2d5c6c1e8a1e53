"""The files that start the service with the machine are what systemd and launchd read, and hold no
secret.
"""

import plistlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lightlm_flows.service.servers import open_secrets
from lightlm_flows.service.units import describe_agent, describe_systemd, quote_for_systemd
from tests.command_line import CommandLine

COMMAND = ["/opt/a $HOME 50%/python", "-P", "-m", "lightlm_flows.cli", "up", "--foreground"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_reads_the_unit_without_a_word(tmp_path: Path) -> None:
    folder = tmp_path / "with $HOME 50%"
    folder.mkdir()
    program = folder / "python"
    program.write_text("")
    program.chmod(0o755)
    unit = describe_systemd(tmp_path / "home 50%", [str(program), *COMMAND[1:]], tmp_path)
    unit.path.write_bytes(unit.content)
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", str(unit.path)],
        env={"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_words_are_quoted_as_systemd_reads_them() -> None:
    assert quote_for_systemd('a "b" \\ $HOME 50%', fills_in=True) == '"a \\"b\\" \\\\ $$HOME 50%%"'
    assert quote_for_systemd("LIGHTLM_HOME=/a $b 50%") == '"LIGHTLM_HOME=/a $b 50%%"'


def test_the_agent_of_launchd_starts_the_same_command_and_keeps_it(tmp_path: Path) -> None:
    unit = describe_agent(tmp_path / "home", COMMAND, tmp_path)
    agent = plistlib.loads(unit.content)
    assert unit.path == tmp_path / "Library" / "LaunchAgents" / f"{agent['Label']}.plist"
    assert agent["ProgramArguments"] == COMMAND
    assert agent["EnvironmentVariables"] == {"LIGHTLM_HOME": str(tmp_path / "home")}
    assert agent["RunAtLoad"] is agent["KeepAlive"] is True


@pytest.mark.skipif(shutil.which("systemctl") is None, reason="needs systemd")
def test_the_command_writes_the_unit_says_how_to_use_it_and_starts_nothing(
    make_command_line: Callable[[], CommandLine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    lightlm = make_command_line()
    lightlm.home.mkdir()
    secrets = open_secrets(lightlm.home).model_dump().values()
    done = lightlm("up", "--systemd", "--prefect-port", 4211)
    assert done.code == 0, done.err
    path = tmp_path / "systemd" / "user" / "lightlm.service"
    assert done.out == f"{path}\n"
    assert "systemctl --user enable --now lightlm" in done.err
    assert '"--prefect-port" "4211"' in path.read_text()
    assert not [secret for secret in secrets if secret in path.read_text()]
    assert lightlm.list_processes() == []
