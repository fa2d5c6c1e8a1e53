"""Stop criteria: how much of the budget is spent, and whether one more step fits, by clock or by
steps.

The clock is an argument, so that a test can be exact.
"""

import statistics
from collections import deque
from collections.abc import Callable
from typing import Protocol

SCORES_REMEMBERED = 5
"""Validations whose speed the final score is expected to have."""

OPENING_SECONDS = 0.25
"""Seconds of the final score to open the model's folder and the held-out text (3M parameters)."""

SCORING_SHARE = 0.15
"""Fraction of the training time that the final score gets at most if validation is slow."""

STEPS_REMEMBERED = 200
"""Steps whose times judge the next one; a longer memory reacts late to a throttled machine."""

STALL_FACTOR = 4.0
"""Factor on the median step beyond which a step is a stall: a swap, SIGSTOP, a closed lid."""

STALLS_IGNORED = 0.05
"""Fraction of recent steps that may be stalls and not count; one stall always may."""

FIRST_CHECKPOINT = 0.1
"""Fraction of the budget at the first checkpoint: any later death leaves something to register."""

CHECKPOINT_SHARE = 0.005
"""Fraction of the time that checkpoints beyond the first may take."""

MILESTONE_SHARE = 0.05
"""Fraction of the time since the last checkpoint that one at a part of the budget may take: in
18 s on a slow disk, four took 4 of the 7 s of training.
"""

SLOW_SECONDS = 0.25
"""Seconds of saving from which that fraction counts."""

LEAST_BETWEEN_SECONDS = 5.0
"""Seconds between two checkpoints that only the clock asks for."""


class StopCriterion(Protocol):
    """What the trainer asks before each step."""

    def progress(self, step: int) -> float:
        """Return the fraction of the budget that is spent, in [0, 1], before step `step`
        (from 0).
        """
        ...

    def allows(self, step: int) -> bool:
        """Return whether step `step` still fits."""
        ...

    def record_step(self, seconds: float) -> None:
        """Take note of how long a step took."""
        ...


class TimeCriterion:
    """Paced by a clock: `budget_seconds` from now, of which `spent_seconds` are already gone."""

    def __init__(
        self, budget_seconds: float, clock: Callable[[], float], spent_seconds: float = 0.0
    ) -> None:
        self.budget_seconds = budget_seconds
        self._clock = clock
        self._start = clock() - spent_seconds
        self._first: float | None = None
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
        """Return whether a step as slow as the slowest 1 % of recent ones, stalls aside, ends in
        time.
        """
        return self.spent_seconds + self.slow_step_seconds() <= self.budget_seconds

    def slow_step_seconds(self) -> float:
        """Return the 99th percentile of recent step times without rare stalls, in seconds; 0 before
        the first step.

        A process's first step, which may compile the model, judges the second alone.
        """
        if not self._recent:
            return self._first or 0.0

        ordered = sorted(self._recent)
        # The first step is never shorter than the others: a second one far above it was a stall.
        usual = statistics.median_low([*ordered, self._first or 0.0])
        steady = [seconds for seconds in ordered if seconds <= STALL_FACTOR * usual]
        num_stalls = len(ordered) - len(steady)
        if num_stalls <= max(1, STALLS_IGNORED * len(ordered)):
            ordered = steady or [usual]

        return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]

    def record_step(self, seconds: float) -> None:
        """Take note of how long a step took."""
        if self._first is None:
            self._first = seconds
        else:
            self._recent.append(seconds)

    def extend(self, seconds: float) -> None:
        """Move the end by `seconds`, which may be negative."""
        self.budget_seconds += seconds


class ScoringTime:
    """Seconds of the final score: as planned, until validations show how fast held-out text is
    scored.

    Timed before training on one batch, the speed was 0.6 to 2 times the real one; a run was 15 s
    early or 4 s late.
    """

    def __init__(self, num_tokens: int, expected_seconds: float) -> None:
        self.seconds = expected_seconds
        self._num_tokens = num_tokens
        self._most = max(expected_seconds, 0.0)
        self._measured: deque[float] = deque(maxlen=SCORES_REMEMBERED)

    def record(self, num_tokens: int, seconds: float, training_seconds: float) -> float:
        """Take note that scoring `num_tokens` took `seconds`; return by how many seconds the
        expectation grew.

        It stays below `SCORING_SHARE` of the time for training, or what was planned: else not all
        text is scored.
        """
        if self._num_tokens == 0 or num_tokens == 0:
            return 0.0
        self._measured.append(seconds / num_tokens)
        usual = sorted(self._measured)[len(self._measured) // 2]
        before = self.seconds
        most = max(self._most, SCORING_SHARE * training_seconds)
        self.seconds = min(OPENING_SECONDS + usual * self._num_tokens, most)
        return self.seconds - before


class StepCriterion:
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


class Milestones:
    """Fractions of the budget, each reached once: 1/n, 2/n, ... below 1, and those `added`."""

    def __init__(self, count: int, progress: float, added: tuple[float, ...] = ()) -> None:
        fractions = sorted({*(number / count for number in range(1, count)), *added})
        self._left = deque(fraction for fraction in fractions if fraction > progress)

    def reached(self, progress: float) -> bool:
        """Return whether a further fraction is reached at `progress`."""
        is_reached = False
        while self._left and progress >= self._left[0]:
            self._left.popleft()
            is_reached = True
        return is_reached


class CheckpointSchedule:
    """When to save: at `count` equal parts of the budget, at a tenth of it, and as often as costs
    half a percent.

    The first tenth makes something that can be registered, whatever happens after; the rest bounds
    what a death costs. A part of the budget is passed over where saving takes long for it.
    """

    def __init__(self, count: int, progress: float, clock: Callable[[], float]) -> None:
        # None at all where one takes too long; the milestones end above 1 then.
        self._milestones = Milestones(max(1, count), progress, (FIRST_CHECKPOINT,) if count else ())
        self._clock = clock
        self._saved_at: float | None = None
        self._wait = 0.0
        self._least_wait = 0.0

    def is_due(self, progress: float) -> bool:
        """Return whether to save at `progress`."""
        is_reached = self._milestones.reached(progress)
        if self._saved_at is None:
            return is_reached
        waited = self._clock() - self._saved_at
        return waited >= self._wait or (is_reached and waited >= self._least_wait)

    def record(self, seconds: float) -> None:
        """Take note that saving took `seconds`."""
        self._saved_at = self._clock()
        self._wait = max(LEAST_BETWEEN_SECONDS, seconds / CHECKPOINT_SHARE)
        self._least_wait = seconds / MILESTONE_SHARE if seconds >= SLOW_SECONDS else 0.0
