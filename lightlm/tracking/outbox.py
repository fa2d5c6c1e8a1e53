"""The outbox: a process of its own that ships a run's record to MLflow, so that training never waits for it.

Owns the parent's handle on that process. Start it early: it imports MLflow while the run goes on. Run as
`python -m lightlm.tracking.outbox FOLDER` it is the process itself (see outbox_process).
"""

import atexit
import json
import os
import queue
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from lightlm.tracking.registry import ModelVersion
from lightlm.tracking.shipper import count_unsent

LOG = "outbox.log"

CLOSE_SECONDS = 15.0
"""What the process gets, after the run's end, to send the rest."""

TROUBLE_SECONDS = 2.0
"""What a server gets that did not answer last: its next try, and no more, for the run's record is kept."""


@dataclass(frozen=True)
class Shipment:
    """How the shipping of a run ended. What was not sent stays in the run's folder and is sent by a later run."""

    run_id: str | None
    num_unsent: int
    error: str | None


@dataclass(frozen=True)
class ChampionAnswer:
    """The champion that MLflow told of, its files in the cache; or why it cannot be used."""

    version: ModelVersion | None
    error: str | None


class Outbox:
    """The parent's side: starts the process, waits for the registered version, closes it."""

    def __init__(self, folder: Path, process: "subprocess.Popen[str]") -> None:
        self.folder = folder
        self._process = process
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._last: dict[str, Any] = {}
        self._is_over = False
        assert process.stdout is not None
        threading.Thread(target=_read_answers, args=(process.stdout, self._answers), daemon=True).start()

    @classmethod
    def start(cls, folder: Path) -> "Outbox":
        """Start shipping the record in `folder`."""
        with (folder / LOG).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "lightlm.tracking.outbox", str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | {"PYTHONWARNINGS": "ignore"},
                text=True,
                encoding="utf-8",
                start_new_session=True,
            )
        return cls(folder, process)

    def wait_for_version(self, timeout: float) -> ModelVersion | None:
        """Return the version that the recorded registration got; None if it did not come in time, or never will."""
        self._take_until("version", timeout)
        version = self._last.get("version")
        return None if version is None else ModelVersion.model_validate(version)

    def wait_for_champion(self, timeout: float) -> ChampionAnswer:
        """Return the champion that the record asked for (Recorder.ask_champion)."""
        deadline = time.monotonic() + timeout
        while "champion" not in self._last and self._take(deadline):
            pass
        if "champion" not in self._last:
            return ChampionAnswer(None, f"MLflow did not say within {timeout:.0f} s which version is champion")
        champion = self._last["champion"]
        version = None if champion is None else ModelVersion.model_validate(champion)
        return ChampionAnswer(version, self._last["champion_error"])

    def close(self, timeout: float = CLOSE_SECONDS) -> Shipment:
        """Let the process send the rest, for at most `timeout` seconds, and end it."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        self._take_until(None, timeout)
        try:
            # It has said its last word, or has had its time.
            self._process.wait(1.0 if self._is_over else 0.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if "done" in self._last:
            return Shipment(self._last.get("run_id"), **self._last["done"])
        why = "the shipping process ended early" if self._is_over else f"MLflow did not take them within {timeout:g} s"
        if self.trouble is not None:
            why = self.trouble
        return Shipment(self._last.get("run_id"), count_unsent(self.folder), f"{why}; see {self.folder / LOG}")

    @property
    def trouble(self) -> str | None:
        """Why MLflow's last answer was none, as far as this process was told; None where all is well."""
        return self._last.get("trouble")

    def _take_until(self, name: str | None, timeout: float) -> None:
        """Take answers until one has `name`, or without it until the process ends.

        While MLflow is out of reach the wait is TROUBLE_SECONDS, and goes on when it is back.
        """
        deadline, troubled_since = time.monotonic() + timeout, None
        while name not in self._last and not self._is_over:
            if self.trouble is None:
                troubled_since, ends_at = None, deadline
            else:
                troubled_since = troubled_since or time.monotonic()
                ends_at = min(deadline, troubled_since + TROUBLE_SECONDS)
            if not self._take(ends_at) and time.monotonic() >= ends_at:
                return

    def _take(self, deadline: float) -> bool:
        if self._is_over:
            return False
        try:
            answer = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return False
        self._is_over = answer is None
        self._last |= answer or {}
        return not self._is_over


def _read_answers(stream: TextIO, answers: "queue.Queue[dict[str, Any] | None]") -> None:
    for line in stream:
        try:
            answers.put(json.loads(line))
        except ValueError:
            # Torn by the death of the process.
            continue
    answers.put(None)


if __name__ == "__main__":
    from lightlm.tracking.outbox_process import main

    main(Path(sys.argv[1]))
    # All is told and on disk, and the run waits: taking the interpreter and MLflow apart took 0.7 s.
    atexit._run_exitfuncs()
    sys.stderr.flush()
    os._exit(0)
