"""The outbox: the parent's side of the process that ships a run's record to MLflow.

Training never waits for it. Start it early: it imports MLflow while the run goes on. `python -m
lightlm.tracking.outbox FOLDER` is the process itself (see outbox_process).
"""

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightlm.child_process import Message, close_input, end_child, leave, read_answers, start_child
from lightlm.tracking.registry import ModelVersion, is_local
from lightlm.tracking.shipper import count_unsent, name_answer

LOG = "outbox.log"

TROUBLE_SECONDS = 2.0
"""Seconds that all waits get together while MLflow does not answer: one more try of its process."""

OPENING_SECONDS = 5.0
"""Seconds from its start in which the process imports MLflow and opens the store, on two cores."""

MAX_RESTARTS = 3
RESTART_SECONDS = 0.5
"""Restarts of a process that died, and seconds before each."""

AWAY = "failed with exception"
"""Words of MLflow's client where a server did not answer at all."""


@dataclass(frozen=True)
class Shipment:
    """How the shipping of a run ended. What was not sent stays in the run's folder and is sent by a
    later run.
    """

    run_id: str | None
    num_unsent: int
    error: str | None


@dataclass(frozen=True)
class ChampionAnswer:
    """The champion in MLflow, its files in the cache; or why it cannot be used.

    `name`: the model's, one of those that were asked for.
    """

    version: ModelVersion | None
    error: str | None
    name: str


class Outbox:
    """The parent's side: starts the process, waits for the registered version, closes it.

    A process that dies before it is closed is started again by `spawn`: the record is on disk, and
    its successor goes on where it was.
    """

    def __init__(
        self,
        home: Path,
        folder: Path,
        process: "subprocess.Popen[str]",
        spawn: "Callable[[], subprocess.Popen[str]] | None" = None,
    ) -> None:
        self.home = home
        self.folder = folder
        self.num_deaths = 0
        self._started_at = time.monotonic()
        self._process = process
        self._spawn = spawn
        self._closing = threading.Event()
        self._changing = threading.Lock()
        self._answers: queue.Queue[Message | None] = queue.Queue()
        self._last: Message = {}
        self._is_over = False
        self._troubled_since: float | None = None
        self._is_too_slow = False
        threading.Thread(target=self._read_answers, name="outbox", daemon=True).start()

    @classmethod
    def start(cls, home: Path, folder: Path) -> "Outbox":
        """Start shipping the record in `folder`."""
        return cls(home, folder, spawn(folder), lambda: spawn(folder))

    def wait_for_version(self, timeout: float) -> ModelVersion | None:
        """Return the version that the recorded registration got; None if it did not come in time,
        or never will.
        """
        self._take_until("version", timeout)
        self._is_too_slow = "version" not in self._last
        version = self._last.get("version")
        return None if version is None else ModelVersion.model_validate(version)

    def wait_for_champion(self, names: Sequence[str], timeout: float) -> ChampionAnswer:
        """Return the champion that the record asked for by these names (Recorder.ask_champion)."""
        answered = name_answer(names)
        self._take_until(answered, timeout)
        if answered not in self._last:
            why = f"MLflow did not say within {timeout:.0f} s which version is champion"
            return ChampionAnswer(None, why, names[0])
        champion = self._last["champion"]
        version = None if champion is None else ModelVersion.model_validate(champion)
        return ChampionAnswer(version, self._last["champion_error"], self._last["model_name"])

    def close(self, timeout: float) -> Shipment:
        """Let the process send the rest, for at most `timeout` seconds, and end it."""
        with self._changing:
            self._closing.set()
            process = self._process

        close_input(process)
        self._take_until(None, timeout)
        # It has sent its last answer, or has had its time.
        end_child(process, 1.0 if self._is_over else 0.0)

        if "done" in self._last:
            return Shipment(self._last.get("run_id"), **self._last["done"])

        return Shipment(
            self._last.get("run_id"), count_unsent(self.folder), self.explain_delay(timeout)
        )

    @property
    def is_answering(self) -> bool:
        """Whether another wait is worth its time: the process lives, MLflow answered when it was
        asked last, and no wait for the version was in vain.

        A database of this home counts as one that has answered: opening it takes seconds, and no
        server can hang there.
        """
        has_answered = "trouble" in self._last or is_local(self.home)
        is_hopeless = self._is_over or self._is_too_slow or self.trouble is not None
        return has_answered and not is_hopeless

    @property
    def seconds_to_open(self) -> float:
        """Seconds after which the process can be expected to answer: it has only just begun where a
        run that died has nothing left but its registration.
        """
        if "trouble" in self._last:
            return 0.0
        return max(0.0, self._started_at + OPENING_SECONDS - time.monotonic())

    def explain_delay(self, seconds: float) -> str:
        """Return why what was waited for did not come within `seconds`: the true cause, as far as
        it is known here.
        """
        see = f"see {self.folder / LOG}"
        if self.trouble is not None:
            return (
                f"{'MLflow is out of reach' if AWAY in self.trouble else 'MLflow refused'}: "
                f"{self.trouble}; {see}"
            )

        if self._is_over:
            again = f", {self.num_deaths} times" if self.num_deaths > 1 else ""
            return f"the process that sends to MLflow was killed or ended early{again}; {see}"

        if is_local(self.home):
            slow = "its disk is slow or busy"
            return (
                f"MLflow's database was not done in the {seconds:.1f} s that were left: "
                f"{slow}; {see}"
            )

        return f"MLflow did not answer in the {seconds:.1f} s that were left; {see}"

    @property
    def trouble(self) -> str | None:
        """The error of MLflow's last request, as far as it is known; None where all is well."""
        return self._last.get("trouble")

    def _take_until(self, name: str | None, timeout: float) -> None:
        """Take answers until one has `name`, or without it until the process ends.

        While MLflow is out of reach all waits together have TROUBLE_SECONDS, and go on when it is
        back.
        """
        deadline = time.monotonic() + timeout
        while name not in self._last and not self._is_over:
            if self.trouble is None:
                self._troubled_since = None
                ends_at = deadline
            else:
                self._troubled_since = self._troubled_since or time.monotonic()
                ends_at = min(deadline, self._troubled_since + TROUBLE_SECONDS)
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

    def _read_answers(self) -> None:
        """Read the answers of the process and of its successors, until the last one has ended."""
        process = self._process
        is_done = False
        while process is not None:
            for answer in read_answers(process):
                is_done |= "done" in answer
                self._answers.put(answer)
            process = None if is_done else self._replace(process)

        self._answers.put(None)

    def _replace(self, dead: "subprocess.Popen[str]") -> "subprocess.Popen[str] | None":
        """Start a successor of a process that died; None while closing, or after MAX_RESTARTS."""
        self.num_deaths += 1
        if (
            self._spawn is None
            or self.num_deaths > MAX_RESTARTS
            or self._closing.wait(RESTART_SECONDS)
        ):
            return None

        with self._changing:
            if self._closing.is_set():
                return None
            dead.wait()
            self._answers.put({"trouble": None})  # its successor reports it again
            self._process = self._spawn()
            return self._process


def spawn(folder: Path) -> "subprocess.Popen[str]":
    """Start the process that ships the record in `folder`."""
    environment = {"PYTHONWARNINGS": "ignore"}
    return start_child(
        "lightlm.tracking.outbox", str(folder), log=folder / LOG, environment=environment
    )


if __name__ == "__main__":
    from lightlm.tracking.outbox_process import main

    main(Path(sys.argv[1]))
    leave()
