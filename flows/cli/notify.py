"""The notification at the end of a run: a user's command, started with one sentence."""

import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lightlm.errors import ParameterError
from lightlm.json_object import JsonObject
from lightlm.quantities import format_seconds
from lightlm_flows.cli.launching import log_aside

if TYPE_CHECKING:
    from lightlm.runs.summary import RunSummary

LIMIT_SECONDS = 30.0
"""Seconds that the command may take; then it is ended, and the run's result stays."""


class Notifier:
    """Runs a command at the end of a run: a sentence as last argument, JSON on standard input.

    No shell reads it, so that nothing in a data set's name can be a command.
    """

    def __init__(self, command: str | None) -> None:
        """Split the command as a shell would.

        Raises:
            ParameterError: it is none that is here.
        """
        try:
            self.words = shlex.split(command or "")
        except ValueError as error:
            raise ParameterError(
                f"--notify {command!r} cannot be read as a command: {error}; close its quotes"
            ) from None

        if command is not None and (not self.words or shutil.which(self.words[0]) is None):
            raise ParameterError(
                f"--notify {command!r} names no command here; give a program, as in --notify "
                "'notify-send LightLM', or "
                "a script of yours; it gets one sentence as its last argument"
            )

    @contextmanager
    def around(self) -> Iterator["Notifier"]:
        """Notify of a failure inside; a success is notified by `finish`."""
        try:
            yield self
        except Exception as error:
            self.run(f"training failed: {error}", {"status": "failed", "error": str(error)})
            raise

    def finish(self, summary: "RunSummary") -> None:
        """Notify of a run's result."""
        version = (
            f"version {summary.model_version}" if summary.model_version else "not registered yet"
        )
        phrase = f"{summary.model_name} {version}: {summary.bits_per_byte:.3f} bits per byte"
        result = {"status": "finished"} | summary.model_dump(mode="json", exclude={"plan"})
        self.run(f"{phrase} after {format_seconds(summary.elapsed_seconds)}", result)

    def run(self, sentence: str, result: JsonObject) -> None:
        """Start the command and wait for it; whatever becomes of it changes nothing of the run."""
        if not self.words:
            return

        try:
            ended = subprocess.run(
                [*self.words, sentence.replace("\0", " ")],
                input=json.dumps(result).encode(),
                stdout=subprocess.DEVNULL,
                timeout=LIMIT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            log_aside(
                f"--notify {self.words[0]} took more than {LIMIT_SECONDS:.0f} s and was ended"
            )
        except OSError as error:
            log_aside(f"--notify {self.words[0]} could not be started: {error.strerror}")
        else:
            if ended.returncode:
                log_aside(f"--notify {self.words[0]} ended with exit code {ended.returncode}")
