"""Fewer step events than steps: a person and a database need four a second, with no loss left out
of the mean.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from lightlm.training.events import StepDone


class ThrottledSteps:
    """Step events, at most one each `seconds`; the mean loss of those left out goes into
    the next.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.losses: list[float] = []
        self.last: StepDone | None = None
        self.emitted_at = -math.inf

    def take(self, event: StepDone) -> Iterator[StepDone]:
        """Return the event to pass on now, if one is due."""
        self.losses.append(event.loss)
        self.last = event
        if time.monotonic() - self.emitted_at >= self.seconds:
            yield from self.flush()

    def flush(self) -> Iterator[StepDone]:
        """Return what is held back, if anything."""
        if self.last is not None and self.losses:
            self.emitted_at = time.monotonic()
            yield replace(self.last, loss=float(np.mean(self.losses)))
            self.losses.clear()
