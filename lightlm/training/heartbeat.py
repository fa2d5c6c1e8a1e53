"""Heartbeat and watchdog: they distinguish a worker that hangs from one that is slow. No torch.

Once a second, the worker sends how long its main thread has been at the same instruction; the
supervisor judges. A worker that is stopped by a signal or swapped out sends nothing. One that waits
for a lost peer or a hanging driver sends ever longer times. Compilation, validation and saving move
on.
"""

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from lightlm.json_object import JsonObject

BEAT_SECONDS = 1.0

SILENT_SECONDS = 20.0
"""Seconds without a beat: loading a library, or copying gigabytes, blocks all threads."""

STARTING_SECONDS = 300.0
"""Seconds without a first beat: torch is imported from a cold disk."""

STUCK_SECONDS = 120.0
"""Seconds at one instruction: a compiler and a large backward pass take long."""

FIRST_STUCK_SECONDS = 600.0
"""Seconds at one instruction before a job's first event, when a whole model may be compiled."""

STUCK_FACTOR = 10.0
"""Factor on the longest stop of this job so far: the limit grows with the time of a step."""

LATE_SECONDS = 120.0
"""Seconds that a job gets after its deadline, to save, to validate and to export."""

LATE_FACTOR = 20.0
"""Factor on the longest stop that it gets if that is more: a slow disk makes both long."""

DUMP_SECONDS = 1.0
"""Seconds that a worker gets to write them."""

DUMP_SIGNAL = getattr(signal, "SIGUSR1", signal.SIGTERM)
"""Windows has no such signal, and `faulthandler.register` neither."""


class Heartbeat:
    """The worker's side: beats from a thread of its own while a job runs."""

    def __init__(
        self, emit: Callable[[JsonObject], None], every_seconds: float = BEAT_SECONDS
    ) -> None:
        self._emit = emit
        self._every_seconds = every_seconds
        self._is_running = threading.Event()
        self._steps = 0
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat; the signal of `dump_stacks` writes all stacks to standard error."""
        if hasattr(faulthandler, "register"):
            faulthandler.register(DUMP_SIGNAL, all_threads=True)
        self._thread.start()

    def step(self) -> None:
        """Note that the main thread has moved on, as it does before each step."""
        self._steps += 1

    def begin(self) -> None:
        """A job begins."""
        self.step()
        self._is_running.set()

    def end(self) -> None:
        """The job is over; what the main thread waits for now is the next one."""
        self._is_running.clear()

    def _beat(self) -> None:
        last = None
        stood = 0.0
        looked_at = time.monotonic()

        while True:
            self._is_running.wait()
            now = time.monotonic()
            place = (self._steps, find_place())
            # A process that was stopped, with its whole machine perhaps, has not stood still all
            # that time.
            stood = stood + min(now - looked_at, 2 * self._every_seconds) if place == last else 0.0
            last = place
            looked_at = now
            self._emit({"beat": round(stood, 1)})
            time.sleep(self._every_seconds)


def find_place() -> tuple[tuple[int, int], ...]:
    """Return where the main thread is: each of its frames and the instruction in it."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    place = []
    while frame is not None:
        place.append((id(frame), frame.f_lasti))
        frame = frame.f_back
    return tuple(place)


class Watchdog:
    """The supervisor's side of one job: it gets the records and the waits, and reports a hang."""

    def __init__(
        self, arguments: Mapping[str, Any], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._began = clock()
        # A job that is bounded by steps may take as long as it takes.
        is_timed = "deadline" in arguments and arguments.get("trainer", {}).get("max_steps") is None
        self._deadline: float | None = float(arguments["deadline"]) if is_timed else None
        self._silent = 0.0
        self._standing = 0.0
        self._longest = 0.0
        self._has_beaten = False
        self._has_event = False

    def take(self, record: Mapping[str, Any]) -> None:
        """Process a record: a beat, or an event of the job."""
        self._silent = 0.0
        if "beat" not in record:
            self._has_event = self._has_event or "event" in record
            self._standing = 0.0
            return
        self._has_beaten = True
        if record["beat"] < self._standing:
            self._longest = max(self._longest, self._standing)
        self._standing = record["beat"]

    def wait(self, seconds: float) -> None:
        """Process a silence of `seconds`; a sleep of machine or parent counts little."""
        self._silent += min(seconds, 2 * BEAT_SECONDS)

    def find_trouble(self) -> str | None:
        """Return why the worker is given up; None while there is hope."""
        silent = SILENT_SECONDS if self._has_beaten else STARTING_SECONDS
        if self._silent > silent:
            return f"gave no sign of life for {self._silent:.0f} s"

        least = STUCK_SECONDS if self._has_event else FIRST_STUCK_SECONDS
        if self._standing > max(least, STUCK_FACTOR * self._longest):
            return f"stood still for {self._standing:.0f} s"
        if self._deadline is None:
            return None

        late = self._clock() - max(self._deadline, self._began)
        if late > max(LATE_SECONDS, LATE_FACTOR * self._longest):
            return f"did not end within {late:.0f} s of its deadline"

        return None


def dump_stacks(pid: int) -> None:
    """Have a worker write its threads' stacks to its log; a stopped one is woken for it."""
    if not hasattr(faulthandler, "register"):
        return
    try:
        os.kill(pid, DUMP_SIGNAL)
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return
    time.sleep(DUMP_SECONDS)
