"""The time kept for what follows training, learnt from earlier runs on this machine.

Owns a short history under LIGHTLM_HOME of how long the end of a run took beyond the scoring that its plan expected.
"""

import json
import statistics
from pathlib import Path
from typing import NamedTuple

from lightlm.errors import StoreError
from lightlm.store.commit import write_file

FIRST_CLOSING_SECONDS = 1.2
"""Kept on a machine without history: a last validation, the model's folder, registration and the end of the process
take 1.0 s on two quiet cores, and twice that on busy ones; a first run may be late by a little, but should not waste
much: with a second more, runs of 18 and 36 s left it unused."""

MOST_SPREAD = 2.5
"""A slow end counts as this many times the median at most: a busy disk once took 13 s, and is no rule."""

FIRST_SCORING_MARGIN = 1.15
"""Of the expected time for the held-out text, on a machine without history."""

TOLERANCE_SECONDS, TOLERANCE_FRACTION = 1.0, 0.005
"""What one run in twenty may be late by, of the budget: half of what the promise of a kept deadline allows. Without it
nineteen runs would leave time unused for the sake of one."""

REMEMBERED = 20
"""Runs that the estimate looks at."""


class Closing(NamedTuple):
    """What is kept for the end: seconds, and what the expected time for scoring is multiplied by."""

    seconds: float
    scoring_margin: float = 1.0


class ClosingTimes:
    """Seconds from the last step to the end of the process, without the final score, of the last runs."""

    def __init__(self, home: Path) -> None:
        self.path = home / "closing_seconds.json"

    def read(self) -> list[float]:
        """Return the remembered seconds, oldest first; empty when there is none or the file is broken."""
        try:
            values = json.loads(self.path.read_text(encoding="utf-8"))
            return [float(value) for value in values][-REMEMBERED:]
        except (OSError, ValueError, TypeError):
            return []

    def estimate(self, budget_seconds: float) -> Closing:
        """Return what to keep: the 95th percentile less what a run may be late by, but never less than the median."""
        seconds = sorted(self.read())
        if not seconds:
            return Closing(FIRST_CLOSING_SECONDS, FIRST_SCORING_MARGIN)
        # The first guess counts as one run more: a single run tells little.
        usual = statistics.median_low([*seconds, FIRST_CLOSING_SECONDS])
        slow = min(seconds[min(len(seconds) - 1, int(0.95 * len(seconds)))], MOST_SPREAD * usual)
        tolerance = max(TOLERANCE_SECONDS, TOLERANCE_FRACTION * budget_seconds)
        return Closing(max(usual, slow - tolerance, 0.0))

    def record(self, seconds: float) -> None:
        """Remember one more run; a disk that refuses is no reason to fail a finished run."""
        try:
            write_file(self.path, json.dumps([*self.read(), round(seconds, 3)][-REMEMBERED:]).encode())
        except StoreError:
            return
