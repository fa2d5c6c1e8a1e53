"""Child processes that share a job: each answers requests of its parent, and answers come in order.

Requests and answers are lists of numpy arrays, sent as a line of JSON (types and shapes) and bytes.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np

from lightlm.child_process import SAFE_PATH, python_command

ONE_THREAD = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""Environment of a child: its libraries would otherwise start a thread per core in each."""

ENDING_SECONDS = 10.0
"""Seconds that a child may take to end after its last answer."""

Arrays = Sequence[np.ndarray]
Work = Callable[[Arrays], Arrays]


class Job(NamedTuple):
    """A job: the module whose main program calls `serve`, the function that gives the work, and its
    arguments (JSON).
    """

    module: str
    start: Callable[..., Work]
    arguments: Sequence[str | int | bool | None]


class Worker:
    """Answers requests, in a child process or here. Where the child fails, its work is done here;
    where it was killed, first by another child, at most `restarts` times.

    A context manager.
    """

    def __init__(self, job: Job, *, is_child: bool = True, restarts: int = 0) -> None:
        self._job = job
        self._here: Work | None = None
        self._restarts = restarts
        self.process: subprocess.Popen[bytes] | None = None
        if is_child:
            self._start()

    def _start(self) -> None:
        self.process = subprocess.Popen(
            python_command(self._job.module, json.dumps(self._job.arguments)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # An interrupt is the parent's to answer; the child ends with its input.
            start_new_session=True,
            env=os.environ | SAFE_PATH | ONE_THREAD,
        )

    def answer(self, request: Arrays) -> Arrays:
        """Return the answer to a request."""
        if self.process is not None:
            try:
                _send(self.process.stdin, request)
                return _receive(self.process.stdout)
            except (OSError, EOFError):
                if self._was_killed() and self._restarts:
                    self._restarts -= 1
                    self._start()
                    return self.answer(request)

        if self._here is None:
            self._here = self._job.start(*self._job.arguments)
        return self._here(request)

    def _was_killed(self) -> bool:
        """End the child; return whether something else had: after an error it ends by itself."""
        status = 0
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self.process.wait(ENDING_SECONDS)
        self.close()
        return status != 0

    def close(self) -> None:
        """End the child."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def answer_in_order(
    job: Job, requests: Iterable[Arrays], num_children: int, *, works_here: bool = False
) -> Iterator[Arrays]:
    """Yield the answers to requests in order, by children and, with `works_here`, a thread of this
    process.

    At most two requests a worker wait for the answers before them.
    """
    num_workers = num_children + works_here
    with contextlib.ExitStack() as stack:
        idle = deque(
            stack.enter_context(Worker(job, is_child=index < num_children))
            for index in range(num_workers)
        )
        pool = stack.enter_context(ThreadPoolExecutor(num_workers))

        def answer(request: Arrays) -> Arrays:
            worker = idle.pop()  # as many threads as workers: one is always idle here
            try:
                return worker.answer(request)
            finally:
                idle.append(worker)

        waiting: deque[Future[Arrays]] = deque()
        try:
            for request in requests:
                waiting.append(pool.submit(answer, request))
                if len(waiting) > 2 * num_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def serve(start: Callable[..., Work]) -> None:
    """Answer the parent's requests until they end, or until one fails, which the parent does."""
    with contextlib.suppress(Exception):
        work = start(*json.loads(sys.argv[1]))
        while True:
            _send(sys.stdout.buffer, work(_receive(sys.stdin.buffer)))


def _send(stream: Any, arrays: Arrays) -> None:
    arrays = [np.ascontiguousarray(array) for array in arrays]
    header = json.dumps([[array.dtype.str, array.shape] for array in arrays])
    stream.write(header.encode() + b"\n")
    for array in arrays:
        stream.write(array.tobytes())
    stream.flush()


def _receive(stream: BinaryIO | Any) -> Arrays:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError("the other process ended")

    arrays = []
    for dtype, shape in json.loads(line):
        array = np.empty(shape, dtype)
        content = stream.read(array.nbytes)
        if len(content) < array.nbytes:
            raise EOFError("the other process ended")
        arrays.append(np.frombuffer(content, dtype).reshape(shape))
    return arrays
