"""The seconds that a run may wait for servers at its end: one allowance for all waits.

A run promises to be late by at most max(2 s, 1 %) by the ledger. Every wait at the end asks here,
and so does each request to Prefect's API, so that their sum is bounded, however many servers are
slow. The clock is an argument.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lightlm.budget.ledger import Ledger
from lightlm.budget.reserve import EndConditions

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

REQUEST_SECONDS = 10.0
"""Seconds that a request to Prefect may take, instead of its 60; each flow makes a handful."""

REQUEST_FRACTION = 0.05
"""Fraction of the budget that one request may take while the run goes on."""

SHORT_REQUEST_SECONDS = 3.0
"""Seconds that a request may take in a run so short that the fraction is less."""

LEFT_FRACTION = 0.4
"""Fraction of the time left that one request may take: Prefect that hung from 93 % of 36 s on took
all that was kept for the score and the registration with one.
"""

HEALTHY_REQUEST_SECONDS = 1.5
"""Seconds of a request after the deadline, if the one before was answered; 0.05 s are usual."""

LEAST_REQUEST_SECONDS = 0.3
"""Seconds of a request if the one before was not answered."""

EXIT_SECONDS = 5.0
LEAST_EXIT_SECONDS = 0.5
"""Seconds that libraries get at the end of the process to send what they hold."""


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
        self.conditions = EndConditions()
        """What slows servers down, and what follows the waits; known once the run has begun."""

    def seconds(self, fraction: float, *, least: float = 0.0, most: float = MOST_SECONDS) -> float:
        """Return how long a wait that begins now may take: until `fraction` of the lateness,
        `least` in any case.

        The first wait opens the allowance: with time to spare, all of them together have
        MOST_SECONDS.
        """
        now = self._clock()
        least = self._stretch(least)
        self._opened_at = now if self._opened_at is None else self._opened_at
        late_end = self._deadline + fraction * self._lateness - self.conditions.seconds_after_waits
        ends_at = min(late_end, self._opened_at + MOST_SECONDS)
        return min(most, max(least, ends_at - now))

    def left(self, fraction: float, *, least: float = 0.0) -> float:
        """Return the same of a wait while the run goes on, which opens nothing."""
        return max(self._stretch(least), self._deadline + fraction * self._lateness - self._clock())

    def _stretch(self, least: float) -> float:
        """Return `least` on a slow machine: if the run is late, so are the servers."""
        late = max(0.0, self._clock() - self._deadline - self._lateness)
        return least * self.conditions.slowdown + LATE_FRACTION * late if least else 0.0


class Patience:
    """Decides how long a request may take, by the run of this process and by the last answer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._allowance: Allowance | None = None
        self._usual_seconds = REQUEST_SECONDS
        self._is_answered = True
        self._asked: list[float] = []
        """When the requests began that have no answer yet."""

    def follow(self, ledger: Ledger) -> Allowance:
        """Bound requests by a run's clock; return the allowance that all its waits share."""
        self._allowance = Allowance(ledger.deadline, ledger.budget_seconds, ledger.clock)
        self._usual_seconds = min(
            REQUEST_SECONDS, max(SHORT_REQUEST_SECONDS, REQUEST_FRACTION * ledger.budget_seconds)
        )
        return self._allowance

    def request_seconds(self) -> float:
        """Return the seconds that the next request may take."""
        if not self._is_answered:
            return LEAST_REQUEST_SECONDS
        if self._allowance is None:
            return self._usual_seconds
        # A server that is silent to one request already gets no second moment for the next one.
        now = self.clock()
        silence = now - min(self._asked, default=now)
        least = max(LEAST_REQUEST_SECONDS, HEALTHY_REQUEST_SECONDS - silence)
        left = self._allowance.left(ORCHESTRATION, least=least)
        return min(self._usual_seconds, max(least, LEFT_FRACTION * left))

    def exit_seconds(self) -> float:
        """Return the seconds that the end of the process may take."""
        if self._allowance is None:
            return EXIT_SECONDS
        return min(EXIT_SECONDS, self._allowance.left(EXIT, least=LEAST_EXIT_SECONDS))

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the request inside as unanswered until it ends; threads may ask at once."""
        asked_at = self.clock()
        self._asked.append(asked_at)
        try:
            yield
        finally:
            self._asked.remove(asked_at)

    def note(self, *, is_answered: bool) -> None:
        """Take note of whether the last request was answered in time."""
        self._is_answered = is_answered


PATIENCE = Patience()
"""The patience of this process: Prefect makes its clients by itself."""
