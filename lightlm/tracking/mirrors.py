"""Mirrors of a run in Trackio and Weights & Biases: checked before it starts, each in a process.

No process of the run waits for a mirror. It reads the run's record, and may go on for a while after
the run's end: no budget pays for the time of uploads.
"""

import importlib.util
import netrc
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lightlm.child_process import close_input, start_child
from lightlm.errors import ParameterError
from lightlm.params import TrackingParams
from lightlm.tracking.following import SWITCHES

NAMES = {"trackio": "Trackio", "wandb": "Weights & Biases"}

WITHOUT_KEY = ("offline", "dryrun", "disabled")
"""Values of WANDB_MODE with which nothing is sent."""


def check_mirrors(tracking: TrackingParams) -> None:
    """Refuse a mirror that is a switch, whose package is missing, or that has no key to send with.

    Raises:
        ParameterError: it is.
    """
    for kind, project in list_mirrors(tracking):
        if project.lower() in SWITCHES:
            raise ParameterError(
                f"tracking.{kind} is {project!r}, wanted the name of a project of {NAMES[kind]}; "
                "give one, such as lightlm, or leave it null"
            )
        if importlib.util.find_spec(kind) is None:
            raise ParameterError(
                f"tracking.{kind} wants the package {kind}; run `pip install 'lightlm[{kind}]'`, "
                "or leave it null"
            )
        if kind == "wandb" and not can_send():
            raise ParameterError(
                "tracking.wandb wants a key of Weights & Biases; run `wandb login`, set "
                "WANDB_API_KEY, or WANDB_MODE=offline to send nothing"
            )


def list_mirrors(tracking: TrackingParams) -> Iterator[tuple[str, str]]:
    """Yield each mirror that is asked for, with its project."""
    if tracking.trackio is not None:
        yield "trackio", tracking.trackio
    if tracking.wandb is not None:
        yield "wandb", tracking.wandb


def can_send() -> bool:
    """Return whether Weights & Biases has a key here, or needs none."""
    if os.environ.get("WANDB_MODE") in WITHOUT_KEY or os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    for path in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        with suppress(OSError, netrc.NetrcParseError, RuntimeError):
            if path and netrc.netrc(str(Path(path).expanduser())).authenticators(host):
                return True
    return False


class Mirrors:
    """The processes that mirror one run."""

    def __init__(self, folder: Path, tracking: TrackingParams) -> None:
        self.processes: list[subprocess.Popen[str]] = []
        for kind, project in list_mirrors(tracking):
            # a machine that cannot start one more process trains all the same
            with suppress(OSError):
                self.processes.append(
                    start_child(
                        "lightlm.tracking.mirror_process",
                        kind,
                        project,
                        str(folder),
                        log=folder / f"{kind}.log",
                    )
                )

    def close(self) -> None:
        """Let them send the rest and end; nothing waits for it."""
        for process in self.processes:
            close_input(process)
