"""The service after a reboot: a user unit of systemd, or an agent of launchd on macOS.

Holds no password: the service's own are in its folder. Restarting the parts is the keeper's work
(flows/service/keeper.py); systemd and launchd start the keeper again.
"""

import plistlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightlm.child_process import python_command
from lightlm.errors import InputError
from lightlm.store.commit import write_file
from lightlm.store.disk import explain_refusals, make_folder

NAME = "lightlm"
LABEL = "org.lightlm.service"
STOP_SECONDS = 150
"""A training saves a checkpoint, and each part gets its own time to end."""


@dataclass(frozen=True)
class Unit:
    """A file for the system's service manager, and the commands that enable and disable it."""

    path: Path
    content: bytes
    enable: Sequence[str]
    disable: Sequence[str]


def describe_unit(
    home: Path, prefect_port: int, mlflow_port: int, environment: Mapping[str, str]
) -> Unit:
    """Return the unit that starts this home's service on this system.

    Raises:
        InputError: neither systemd nor launchd is known here.
    """
    ports = ["--prefect-port", str(prefect_port), "--mlflow-port", str(mlflow_port)]
    command = python_command("lightlm_flows.cli", "up", "--foreground", *ports)
    user = Path(environment.get("HOME") or Path.home())
    if sys.platform == "darwin":
        return describe_agent(home, command, user)
    if sys.platform.startswith("linux"):
        folder = Path(environment.get("XDG_CONFIG_HOME") or user / ".config") / "systemd" / "user"
        return describe_systemd(home, command, folder)

    raise InputError(
        "units are written for systemd (Linux) and launchd (macOS); run `lightlm up` after each "
        "start here"
    )


def describe_systemd(home: Path, command: Sequence[str], folder: Path) -> Unit:
    """Return the user unit of systemd."""
    lines = [
        "[Unit]",
        "Description=LightLM: Prefect, MLflow and a worker",
        "",
        "[Service]",
        # $ is filled in in all words of a command but the first.
        "ExecStart="
        + " ".join(
            quote_for_systemd(word, fills_in=place > 0) for place, word in enumerate(command)
        ),
        "Environment=" + quote_for_systemd(f"LIGHTLM_HOME={home}"),
        "Restart=always",
        "RestartSec=10",
        "KillMode=mixed",
        f"TimeoutStopSec={STOP_SECONDS}",
        "UMask=0077",
        "",
        "[Install]",
        "WantedBy=default.target",
        "",
    ]

    return Unit(
        folder / f"{NAME}.service",
        "\n".join(lines).encode(),
        [
            "systemctl --user daemon-reload",
            f"systemctl --user enable --now {NAME}",
            "loginctl enable-linger    # from the machine's start on, not only while you are "
            "logged in",
        ],
        [f"systemctl --user disable --now {NAME}"],
    )


def quote_for_systemd(word: str, *, fills_in: bool = False) -> str:
    """Return a word escaped for systemd: % everywhere, and $ where it `fills_in` variables."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{word.replace("$", "$$") if fills_in else word}"'


def describe_agent(home: Path, command: Sequence[str], user: Path) -> Unit:
    """Return the agent of launchd."""
    content = {
        "Label": LABEL,
        "ProgramArguments": list(command),
        "EnvironmentVariables": {"LIGHTLM_HOME": str(home)},
        "RunAtLoad": True,
        "KeepAlive": True,
        "ThrottleInterval": 10,
        "ExitTimeOut": STOP_SECONDS,
        "Umask": 0o077,
        "StandardErrorPath": str(home / "service" / "launchd.log"),
    }

    path = user / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    enable = f"launchctl bootstrap gui/$(id -u) {shlex.quote(str(path))}"
    return Unit(
        path, plistlib.dumps(content), [enable], [f"launchctl bootout gui/$(id -u)/{LABEL}"]
    )


def write_unit(unit: Unit) -> None:
    """Write the unit's file.

    Raises:
        StoreError: the disk refused.
    """
    with explain_refusals(unit.path):
        make_folder(unit.path.parent)
    write_file(unit.path, unit.content)
