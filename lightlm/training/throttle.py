"""A throttle of step events: people and databases need four per second, averaged over all steps."""

import math
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from lightlm.training.events import StepDone


class ThrottledSteps:
    """Step events, at most one per `seconds`, with the mean loss of those since the last one."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.losses: list[float] = []
        self.last: StepDone | None = None
        self.emitted_at = -math.inf

    def take(self, event: StepDone) -> Iterator[StepDone]:
        """Yield an event, if one is due."""
        self.losses.append(event.loss)
        self.last = event
        if time.monotonic() - self.emitted_at >= self.seconds:
            yield from self.flush()

    def flush(self) -> Iterator[StepDone]:
        """Yield the event that is held back, if any."""
        if self.last is not None and self.losses:
            self.emitted_at = time.monotonic()
            yield replace(self.last, loss=float(np.mean(self.losses)))
            self.losses.clear()
