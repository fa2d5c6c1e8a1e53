"""The worker's supervisor: starts the child process, gives it jobs, restarts it. No torch here.

A memory kill halves the micro-batch, a crash or a hang resumes from the newest checkpoint, and five
deaths without progress end the run. An error that a job raises is passed on and not retried. For
training on several devices the child is an agent, whose first rank is the worker.
"""

import contextlib
import json
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightlm.errors
from lightlm.child_process import (
    Message,
    end_child,
    kill_child,
    read_answers,
    send_message,
    start_child,
)
from lightlm.errors import LightLMError, WorkerBug, WorkerError
from lightlm.training.events import WorkerRestarted, to_json
from lightlm.training.heartbeat import BEAT_SECONDS, Watchdog, dump_stacks

MAX_RESTARTS = 5
"""Deaths of the worker without a new step in between, after which the run ends."""

MAX_CALLS = 2
"""Tries of a job other than training; one that was killed for its memory will be again."""

MAX_STANDBYS = 2
"""Successors that are started at a death before a job needs one: a worker that cannot start costs
no more.
"""

STANDBY_SECONDS = 1.0
"""Seconds that a process whose output has ended gets to end."""

STOP: Message = {"stop": True}
"""The message that asks a job to end at its next step."""

STOP_SECONDS = 10.0
"""Seconds that a worker gets to save and end before it is killed."""


class WorkerDied(WorkerError):
    """The worker ended in the middle of a job. `exit_code` is negative for a signal."""

    def __init__(self, exit_code: int, log: Path) -> None:
        self.exit_code_of_worker = exit_code
        super().__init__(f"{describe_exit(exit_code)}; its last lines are in {log}")

    @property
    def is_memory_kill(self) -> bool:
        """Whether the operating system probably killed it for its memory."""
        return self.exit_code_of_worker in (-signal.SIGKILL, 128 + signal.SIGKILL)


class WorkerHung(WorkerDied):
    """The worker lived and got nowhere, and was killed for it."""

    def __init__(self, why: str, log: Path) -> None:
        self.exit_code_of_worker = -signal.SIGKILL
        WorkerError.__init__(
            self, f"the training process {why} and was killed; where it stood is in {log}"
        )

    @property
    def is_memory_kill(self) -> bool:
        """It was our own kill."""
        return False


def describe_exit(exit_code: int) -> str:
    """Return a sentence on how a process ended."""
    if exit_code == -signal.SIGKILL:
        return "the training process was killed (signal 9; most often the system was out of memory)"
    if exit_code < 0:
        return f"the training process was ended by signal {-exit_code}"
    return f"the training process ended with exit code {exit_code}"


class Worker:
    """One child process that computes; start it early, it imports torch while the caller
    goes on.
    """

    def __init__(self, run_folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.run_folder = run_folder
        self.environment = dict(environment or {})
        self.log = run_folder / "worker.log"
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[Message | None] = queue.Queue()
        self._standby: subprocess.Popen[str] | None = None
        self._num_standbys = 0
        self._command = ("lightlm.training.worker",)
        self._changing = threading.Lock()

    def start(self) -> None:
        """Start the child process, unless a successor waits already; does not wait for it."""
        with self._changing:
            process = self._standby or self._spawn()
            self._standby = None
            self._process, self._answers = process, queue.Queue()
        threading.Thread(
            target=self._read_answers, args=(process, self._answers), daemon=True
        ).start()

    def _spawn(self) -> "subprocess.Popen[str]":
        self.run_folder.mkdir(parents=True, exist_ok=True)
        return start_child(*self._command, log=self.log, environment=self.environment)

    def _read_answers(
        self, process: "subprocess.Popen[str]", answers: "queue.Queue[Message | None]"
    ) -> None:
        """Pass on a process's answers; at its death start a successor at once, so that its imports
        overlap with the handling of the death.
        """
        for answer in read_answers(process):
            answers.put(answer)

        exit_code = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            exit_code = process.wait(STANDBY_SECONDS)

        with self._changing:
            is_missed = self._process is process and self._standby is None
            if exit_code and is_missed and self._num_standbys < MAX_STANDBYS:
                self._num_standbys += 1
                self._standby = self._spawn()

        answers.put(None)

    def call(self, job: str, **arguments: Any) -> Message:
        """Return the result of a job, its events dropped; a worker that dies meanwhile is started
        anew.

        Raises:
            WorkerDied: the child process ended `MAX_CALLS` times.
            LightLMError: as the job raised it.
        """
        for last in range(MAX_CALLS):
            try:
                for record in self.stream(job, **arguments):
                    if "result" in record:
                        return record["result"]
            except WorkerDied:
                if last == MAX_CALLS - 1:
                    raise
        raise AssertionError("a stream ends with its result or an error")

    def stream(self, job: str, **arguments: Any) -> Iterator[Message]:
        """Yield the events of a job and, last, {"result": ...}; errors as `call`. A worker that
        hangs is killed.
        """
        if self._process is None:
            self.start()

        process = self._process
        assert process is not None
        try:
            send_message(process, {"job": job, "arguments": arguments})
        except BrokenPipeError:
            self._process = None
            raise WorkerDied(process.wait(), self.log) from None

        watch = Watchdog(arguments)
        while True:
            if (trouble := watch.find_trouble()) is not None:
                raise self._give_up(process, trouble)
            try:
                record = self._answers.get(timeout=BEAT_SECONDS)
            except queue.Empty:
                watch.wait(BEAT_SECONDS)
                continue
            if record is None:
                self._process = None
                raise WorkerDied(process.wait(), self.log)
            watch.take(record)
            if "died" in record:  # the agent starts its ranks anew
                raise WorkerDied(record["died"], self.log)
            if "error" in record:
                raise self._revive(record["error"])
            if "ready" in record or "beat" in record:
                continue
            yield record
            if "result" in record:
                return

    def train(self, request: Mapping[str, Any]) -> Iterator[Message]:
        """Yield a training run's events and its result, across deaths of the worker.

        After a memory kill the micro-batch is halved; the run resumes from its newest checkpoint.

        Raises:
            WorkerError: five deaths in a row without a new step.
        """
        request = json.loads(json.dumps(dict(request), default=str))
        self._choose_child(request["trainer"])
        deaths = 0
        last_step = -1
        last_progress = 0.0

        while True:
            try:
                for record in self.stream("train", **request):
                    if record.get("step", -1) > last_step:
                        last_step = record["step"]
                        last_progress = record["progress"]
                        deaths = 0
                    yield record
                return
            except WorkerDied as death:
                deaths += 1
                if deaths > MAX_RESTARTS:
                    raise WorkerError(f"{death}; gave up after {MAX_RESTARTS} restarts") from None
                if death.is_memory_kill:
                    trainer = request["trainer"]
                    trainer["micro_batch_size"] = max(1, trainer["micro_batch_size"] // 2)
                yield to_json(WorkerRestarted(max(0, last_step), last_progress, str(death), deaths))

    def _choose_child(self, trainer: Mapping[str, Any]) -> None:
        """Have an agent with the ranks that a run asks for as the child process, or a worker alone.

        What the child held of a device's memory is free for the ranks then.
        """
        nodes, devices = (int(trainer.get(name, 1)) for name in ("num_nodes", "num_devices"))
        if nodes * devices == 1:
            return
        self.stop()
        self._command = ("lightlm.training.agent", str(nodes), str(devices))

    def interrupt(self) -> None:
        """Ask the running job to end at its next step and keep what it reached."""
        if self._process is not None:
            with contextlib.suppress(OSError, ValueError):  # it has ended
                send_message(self._process, STOP)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End the child process: its input ends, then it has `seconds`, then it is killed."""
        with self._changing:
            process = self._process
            self._process = None
            standby = self._standby
            self._standby = None
        for one in (process, standby):
            if one is not None:
                end_child(one, seconds)

    def _give_up(self, process: "subprocess.Popen[str]", why: str) -> WorkerHung:
        """Kill a worker that hangs, once its stacks are in the log; return the error to raise."""
        with self._changing:
            self._process = None
        dump_stacks(process.pid)
        # One that does not end even then keeps its lock, for which its successor waits.
        kill_child(process)
        return WorkerHung(why, self.log)

    def _revive(self, error: Mapping[str, str]) -> LightLMError:
        kind = getattr(lightlm.errors, error["kind"], WorkerError)
        if kind is WorkerBug:
            return kind(
                f"a bug ended the training process: {error['message']}; the traceback is in "
                f"{self.log}"
            )
        return kind(error["message"])

    def __enter__(self) -> "Worker":
        """Start the process."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()
