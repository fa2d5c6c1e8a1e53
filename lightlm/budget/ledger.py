"""The ledger: one monotonic clock, and the seconds of the budget that each named stage took.

It decides the deadline. Time in which the machine is suspended is not charged: the monotonic clock
stands still. A journal in the run's folder keeps the time spent, so that a run that dies resumes
with the rest of its budget.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from lightlm.energy import EnergyMeter
from lightlm.errors import StoreError
from lightlm.json_object import JsonObject
from lightlm.process_identity import find_own_age
from lightlm.store.journal import Journal, read_journal

SECONDS_PER_HOUR = 3600.0

KEPT_EVERY_SECONDS = 0.5
"""Seconds between two records of the time spent. A death can hide these and the time of a write."""

LOGGER = logging.getLogger(__name__)


def find_process_start() -> float:
    """Return the time.monotonic() seconds at which this process began: a command's clock starts
    there.
    """
    return time.monotonic() - find_own_age()


@dataclass(frozen=True)
class Spent:
    """Seconds that a run took before it died: in all, and by stage; and joules by source."""

    seconds: float = 0.0
    entries: Mapping[str, float] = field(default_factory=dict)
    joules: Mapping[str, float] = field(default_factory=dict)


class Ledger:
    """A budget of `hours` from `started_at` (seconds of `clock`), and the seconds of each stage."""

    def __init__(
        self,
        hours: float,
        *,
        started_at: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        spent: Spent | None = None,
        meter: EnergyMeter | None = None,
    ) -> None:
        """Start, or go on where a process before this one ended: `spent` is what it took."""
        self._meter = meter
        self.clock = clock
        now = clock()
        began = now if started_at is None else started_at
        spent = spent or Spent()
        self.started_at = began - spent.seconds
        self.budget_seconds = hours * SECONDS_PER_HOUR
        self.entries: dict[str, float] = dict(spent.entries)
        if now > began:
            self.entries["start-up"] = self.entries.get("start-up", 0.0) + now - began
        self._last = now
        self._open: list[str] = []

    @property
    def deadline(self) -> float:
        """The clock's seconds at which the budget ends."""
        return self.started_at + self.budget_seconds

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.started_at

    @property
    def remaining_seconds(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self.deadline - self.clock()

    @property
    def joules(self) -> dict[str, float]:
        """Joules by source, of the sources that can be read."""
        return {} if self._meter is None else self._meter.joules

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Charge the time inside to `name`; an inner stage's time only to the inner one."""
        self._charge(self._open[-1] if self._open else "orchestration")
        self._open.append(name)
        try:
            yield
        finally:
            self._charge(name)
            self._open.pop()

    def exclude(self, seconds: float) -> None:
        """Exclude `seconds` from the budget: a first download of a data set is not charged."""
        self.started_at += seconds
        self._last += seconds

    def split(self, name: str, parts: dict[str, float]) -> None:
        """Move seconds of stage `name` to finer names, as its own report gives them."""
        for part, seconds in parts.items():
            moved = min(seconds, self.entries.get(name, 0.0))
            if moved > 0:
                self.entries[name] -= moved
                self.entries[part] = self.entries.get(part, 0.0) + moved

    def close(self) -> dict[str, float]:
        """Charge the rest, and return seconds by stage; they sum to the elapsed time."""
        self._charge(self._open[-1] if self._open else "orchestration")
        return dict(self.entries)

    def spent(self) -> Spent:
        """Return the time spent, with the open stage; another thread may read it."""
        entries = dict(self.entries)
        last = self._last
        opened = self._open[-1:] or ["orchestration"]
        now = self.clock()
        entries[opened[0]] = entries.get(opened[0], 0.0) + now - last
        return Spent(now - self.started_at, entries, self.joules)

    def _charge(self, name: str) -> None:
        now = self.clock()
        self.entries[name] = self.entries.get(name, 0.0) + now - self._last
        self._last = now


def read_spent(path: Path) -> Spent:
    """Return the time spent by the last record of a ledger's journal; nothing if there is none."""
    last: Spent = Spent()
    for record, _ in read_journal(path):
        try:
            entries = {str(name): float(seconds) for name, seconds in record["entries"].items()}
            joules = {str(n): float(one) for n, one in record.get("joules", {}).items()}
            last = Spent(max(0.0, float(record["seconds"])), entries, joules)
        except (LookupError, TypeError, ValueError, AttributeError):
            continue
    return last


class LedgerKeeper:
    """Writes a ledger's time into a journal, durably, from its own thread; a context manager."""

    def __init__(
        self, ledger: Ledger, path: Path, every_seconds: float = KEPT_EVERY_SECONDS
    ) -> None:
        self.ledger = ledger
        self.every_seconds = every_seconds
        self._journal = Journal(path)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="ledger", daemon=True)

    def __enter__(self) -> Self:
        """Write a first record and go on."""
        self.write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Write a last record and close."""
        self._is_over.set()
        self._thread.join()
        self.write()
        self._journal.close()

    def write(self) -> None:
        """Write one record. A full disk ends no run: the next record holds the sum."""
        spent = self.ledger.spent()
        record: JsonObject = {
            "seconds": round(spent.seconds, 3),
            "entries": {name: round(seconds, 3) for name, seconds in spent.entries.items()},
        }
        if spent.joules:
            record["joules"] = {name: round(one, 3) for name, one in spent.joules.items()}
        try:
            self._journal.append(record, durable=True)
        except StoreError as error:
            LOGGER.warning("what is spent cannot be kept: %s", error)

    def _keep(self) -> None:
        while not self._is_over.wait(self.every_seconds):
            self.write()
