"""The seconds that a run may wait for servers at its end: one allowance for all waits.

A run promises to be late by at most max(2 s, 1 %) by the ledger. Every wait at the end asks here,
so that their sum is bounded, however many servers are slow. The clock is an argument.
"""

import time
from collections.abc import Callable

PROMISED_SECONDS = 2.0
PROMISED_FRACTION = 0.01
"""Seconds, and fraction of the budget, that a run may be late by the ledger: the larger of the two.
A stopwatch around the run may see twice as much.
"""

MOST_SECONDS = 20.0
"""Seconds that all waits together may take of a run that has time left: half a second is usual."""

LEAST_SECONDS = 2.0
"""Seconds that a server that answered so far gets in any case: a registered model is worth them."""

LATE_FRACTION = 0.25
"""Fraction of the lateness beyond the promise that such a server gets in addition."""

REGISTRATION = 0.4
RECORD = 0.5
ORCHESTRATION = 0.6
"""Fractions of the promised lateness at which the waits end: for the version, for the rest of the
record, and for the last states of the flow run.
"""

EXIT = 1.2
"""Fraction of the promised lateness at which the process ends, interpreter and libraries included.
"""


def promise_lateness(budget_seconds: float) -> float:
    """Return the seconds by which a run may miss its deadline, by the ledger."""
    return max(PROMISED_SECONDS, PROMISED_FRACTION * budget_seconds)


class Allowance:
    """Seconds for waits on servers, until `deadline` (of `clock`) and a part of the lateness."""

    def __init__(
        self, deadline: float, budget_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._deadline = deadline
        self._lateness = promise_lateness(budget_seconds)
        self._clock = clock
        self._opened_at: float | None = None
        self.slowdown = 1.0
        """Factor by which the neighbors on this machine slow its servers down."""
        self.seconds_behind = 0.0
        """Seconds that follow the waits: writes that a slow disk confirms."""

    def seconds(self, fraction: float, *, least: float = 0.0, most: float = MOST_SECONDS) -> float:
        """Return how long a wait that begins now may take: until `fraction` of the lateness,
        `least` in any case.

        The first wait opens the allowance: with time to spare, all of them together have
        MOST_SECONDS.
        """
        now = self._clock()
        least = self._stretch(least)
        self._opened_at = now if self._opened_at is None else self._opened_at
        late_end = self._deadline + fraction * self._lateness - self.seconds_behind
        ends_at = min(late_end, self._opened_at + MOST_SECONDS)
        return min(most, max(least, ends_at - now))

    def left(self, fraction: float, *, least: float = 0.0) -> float:
        """Return the same of a wait while the run goes on, which opens nothing."""
        return max(self._stretch(least), self._deadline + fraction * self._lateness - self._clock())

    def _stretch(self, least: float) -> float:
        """Return `least` on a slow machine: if the run is late, so are the servers."""
        late = max(0.0, self._clock() - self._deadline - self._lateness)
        return least * self.slowdown + LATE_FRACTION * late if least else 0.0
