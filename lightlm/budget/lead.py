"""The time before training: starting, checking and reading, learned from earlier runs here."""

import statistics
from collections.abc import Mapping
from pathlib import Path

from lightlm.budget.reserve import RememberedSeconds

STAGES = ("start-up", "orchestration", "check", "data", "champion", "tokenizer", "shards", "counts")
"""Stages of the ledger before training, without the timing of shapes, which grows with the budget.
"""

FIRST_LEAD_SECONDS = 5.0
"""Seconds in a home without history, with the text in the store already (two cores)."""

TIMING_FRACTION = 0.05
"""Fraction of the budget that the timing of shapes takes at most."""

LEAST_TIMING_SECONDS = 1.0
MOST_TIMING_SECONDS = 5.0
"""Seconds of timing in a short budget, where one shape is timed in any case, and in a long one."""


class LeadTimes(RememberedSeconds):
    """Seconds from the start to the first step, without the timing of shapes, of the last runs."""

    def __init__(self, home: Path) -> None:
        super().__init__(home / "lead_seconds.json")

    def estimate(self, budget_seconds: float) -> float:
        """Return the seconds until training that a run of this budget is expected to take."""
        known = self.read()
        before = statistics.median_low(known) if known else FIRST_LEAD_SECONDS
        timing = min(TIMING_FRACTION * budget_seconds, MOST_TIMING_SECONDS)
        return before + max(timing, LEAST_TIMING_SECONDS)

    def record_ledger(self, entries: Mapping[str, float]) -> None:
        """Remember what one run took, from its ledger."""
        self.record(sum(entries.get(stage, 0.0) for stage in STAGES))
