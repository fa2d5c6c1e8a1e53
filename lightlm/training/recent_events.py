"""The newest events of a run, kept in its checkpoints and emitted again by a resumed run.

When the parent is killed, its orphaned worker trains on until it has saved. The events of those
steps would never be logged otherwise.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace

from lightlm.json_object import JsonObject
from lightlm.training.events import Event, Sampled, StepDone, Validated, from_json, to_json

KEPT_STEPS = 64
"""Step events kept: at four per second, twice the seconds that an orphan lives."""

KEPT_OTHERS = 64
"""Validations and samples kept: usually all of a run."""


class RecentEvents:
    """The newest events of a run, from what a checkpoint kept on."""

    def __init__(self, records: Iterable[JsonObject] = ()) -> None:
        self._steps: deque[StepDone] = deque(maxlen=KEPT_STEPS)
        self._others: deque[Validated | Sampled] = deque(maxlen=KEPT_OTHERS)
        for record in records:
            self.keep(from_json(record))

    def keep(self, event: Event) -> None:
        """Remember an event if a run is judged by its kind."""
        if isinstance(event, StepDone):
            self._steps.append(event)
        elif isinstance(event, Sampled) or (
            isinstance(event, Validated) and math.isfinite(event.bits_per_byte)
        ):
            self._others.append(event)

    def keeping(self, emit: Callable[[Event], None]) -> Callable[[Event], None]:
        """Return an `emit` that remembers each event first."""

        def keep_and_emit(event: Event) -> None:
            self.keep(event)
            emit(event)

        return keep_and_emit

    def dump(self) -> list[JsonObject]:
        """Return what is remembered as JSON, in the order of the steps."""
        return [to_json(event) for event in self._in_order()]

    def replay(self, emit: Callable[[Event], None]) -> None:
        """Emit all that is remembered; the seconds of validations were another process's."""
        for event in self._in_order():
            emit(replace(event, seconds=0.0) if isinstance(event, Validated) else event)

    def _in_order(self) -> list[StepDone | Validated | Sampled]:
        return sorted([*self._steps, *self._others], key=lambda event: event.step)
