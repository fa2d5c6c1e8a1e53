"""How much of the budget is spent and whether one more step fits: by the clock, or by a number of steps.

Owns the decision to stop. The clock is an argument, so that a test can be exact.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

STEPS_REMEMBERED = 200
"""Steps whose times judge the next one; a longer memory reacts late to a throttled machine."""


class Pace(Protocol):
    """What the trainer asks before each step."""

    def progress(self, step: int) -> float:
        """Return the fraction of the budget that is spent, in [0, 1], before step `step` (from 0)."""
        ...

    def allows(self, step: int) -> bool:
        """Return whether step `step` still fits."""
        ...

    def record_step(self, seconds: float) -> None:
        """Take note of how long a step took."""
        ...


class TimePace:
    """Paced by a clock: `budget_seconds` from now, of which `spent_seconds` are already gone."""

    def __init__(self, budget_seconds: float, clock: Callable[[], float], spent_seconds: float = 0.0) -> None:
        self.budget_seconds = budget_seconds
        self._clock = clock
        self._start = clock() - spent_seconds
        self._recent: deque[float] = deque(maxlen=STEPS_REMEMBERED)

    @property
    def spent_seconds(self) -> float:
        """Seconds of the budget that are gone."""
        return self._clock() - self._start

    def progress(self, step: int) -> float:
        """Return the fraction of the budget that is spent."""
        if self.budget_seconds <= 0:
            return 1.0
        return min(1.0, max(0.0, self.spent_seconds / self.budget_seconds))

    def allows(self, step: int) -> bool:
        """Return whether a step as slow as the slowest 1 % of recent ones ends in time."""
        return self.spent_seconds + self.slow_step_seconds() <= self.budget_seconds

    def slow_step_seconds(self) -> float:
        """Return the 99th percentile of recent step times, in seconds; 0 before the first step."""
        if not self._recent:
            return 0.0
        ordered = sorted(self._recent)
        return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]

    def record_step(self, seconds: float) -> None:
        """Take note of how long a step took."""
        self._recent.append(seconds)


class StepPace:
    """Paced by a number of steps: exact, for reproduction and tests."""

    def __init__(self, max_steps: int) -> None:
        self.max_steps = max_steps

    def progress(self, step: int) -> float:
        """Return step / max_steps."""
        return min(1.0, step / self.max_steps)

    def allows(self, step: int) -> bool:
        """Return whether fewer than `max_steps` steps are done."""
        return step < self.max_steps

    def record_step(self, seconds: float) -> None:
        """Ignore the clock."""
