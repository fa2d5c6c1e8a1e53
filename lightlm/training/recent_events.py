"""What a checkpoint remembers of the events before it: a parent that was killed did not hear the
last of them.

Its orphan trains on until it has saved, and what stood unread between the two is gone; who resumes
tells them again.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from lightlm.training.events import Event, Sampled, StepDone, Validated, from_json, to_json

KEPT_STEPS = 64
"""Step events: at four a second, twice what an orphan lives."""

KEPT_OTHERS = 64
"""Validations and samples: all that a run has, as a rule."""


class RecentEvents:
    """The newest events of a run, from what a checkpoint kept on."""

    def __init__(self, records: Iterable[dict[str, Any]] = ()) -> None:
        self._steps: deque[StepDone] = deque(maxlen=KEPT_STEPS)
        self._others: deque[Validated | Sampled] = deque(maxlen=KEPT_OTHERS)
        for record in records:
            self.keep(from_json(record))

    def keep(self, event: Event) -> None:
        """Remember an event, if it is of those that a run is judged by."""
        if isinstance(event, StepDone):
            self._steps.append(event)
        elif isinstance(event, Sampled) or (
            isinstance(event, Validated) and math.isfinite(event.bits_per_byte)
        ):
            self._others.append(event)

    def keeping(self, emit: Callable[[Event], None]) -> Callable[[Event], None]:
        """Return `emit` with what it is told remembered before."""

        def keep_and_emit(event: Event) -> None:
            self.keep(event)
            emit(event)

        return keep_and_emit

    def dump(self) -> list[dict[str, Any]]:
        """Return what is remembered as JSON, in the order of the steps."""
        return [to_json(event) for event in self._in_order()]

    def tell(self, emit: Callable[[Event], None]) -> None:
        """Tell `emit` all that is remembered; the seconds of validations were another process's."""
        for event in self._in_order():
            emit(replace(event, seconds=0.0) if isinstance(event, Validated) else event)

    def _in_order(self) -> list[StepDone | Validated | Sampled]:
        return sorted([*self._steps, *self._others], key=lambda event: event.step)
