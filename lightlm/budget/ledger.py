"""Where every second of the budget went: one monotonic clock and a ledger of named stages.

Owns the deadline. Time in which the machine is suspended is not charged: the monotonic clock stands still then.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_AN_HOUR = 3600.0


class Ledger:
    """A budget of `hours` from `started_at` (seconds of `clock`), and what each stage took of it."""

    def __init__(
        self,
        hours: float,
        *,
        started_at: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self.started_at = clock() if started_at is None else started_at
        self.budget_seconds = hours * SECONDS_AN_HOUR
        self.entries: dict[str, float] = {}
        now = clock()
        if now > self.started_at:
            self.entries["start-up"] = now - self.started_at
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

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Charge the time inside to `name`; an inner stage's time is charged to the inner one only."""
        self._charge(self._open[-1] if self._open else "orchestration")
        self._open.append(name)
        try:
            yield
        finally:
            self._charge(name)
            self._open.pop()

    def exclude(self, seconds: float) -> None:
        """Take `seconds` out of the budget's clock: a first download of a data set is not charged."""
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
        """Charge what is left since the last stage, and return seconds by stage; they sum to the elapsed time."""
        self._charge(self._open[-1] if self._open else "orchestration")
        return dict(self.entries)

    def _charge(self, name: str) -> None:
        now = self.clock()
        self.entries[name] = self.entries.get(name, 0.0) + now - self._last
        self._last = now
