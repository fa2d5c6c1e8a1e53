"""The seconds that a request to Prefect's API may take: fewer near the deadline."""

import time
from collections.abc import Callable

from lightlm.budget.allowance import EXIT, ORCHESTRATION, Allowance
from lightlm.budget.ledger import Ledger

REQUEST_SECONDS = 10.0
"""Seconds that a request to Prefect may take, instead of its 60; each flow makes a handful."""

REQUEST_FRACTION = 0.05
"""Fraction of the budget that one request may take while the run goes on."""

SHORT_REQUEST_SECONDS = 3.0
"""Seconds that a request may take in a run so short that the fraction is less."""

HEALTHY_REQUEST_SECONDS = 1.5
"""Seconds of a request after the deadline, if the one before was answered; 0.05 s are usual."""

LEAST_REQUEST_SECONDS = 0.3
"""Seconds of a request if the one before was not answered."""

EXIT_SECONDS = 5.0
LEAST_EXIT_SECONDS = 0.5
"""Seconds that libraries get at the end of the process to send what they hold."""


class Patience:
    """Decides how long a request may take, by the run of this process and by the last answer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._allowance: Allowance | None = None
        self._usual_seconds = REQUEST_SECONDS
        self._is_answered = True

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
        return min(
            self._usual_seconds, self._allowance.left(ORCHESTRATION, least=HEALTHY_REQUEST_SECONDS)
        )

    def exit_seconds(self) -> float:
        """Return the seconds that the end of the process may take."""
        if self._allowance is None:
            return EXIT_SECONDS
        return min(EXIT_SECONDS, self._allowance.left(EXIT, least=LEAST_EXIT_SECONDS))

    def note(self, *, is_answered: bool) -> None:
        """Take note of whether the last request was answered in time."""
        self._is_answered = is_answered


PATIENCE = Patience()
"""The patience of this process: Prefect makes its clients by itself."""
