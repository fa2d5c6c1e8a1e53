"""The time reserved for evaluation and registration, learned from earlier runs on this machine.

A short history under LIGHTLM_HOME holds how long the end of each run took beyond the expected
scoring.
"""

import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, TypeAdapter

from lightlm.errors import ParameterError
from lightlm.store.remembered import Remembered

FIRST_CLOSING_SECONDS = 1.2
"""Seconds reserved on a machine without history. A last validation, the model's folder,
registration and the end of the process take 1.0 s on two quiet cores, and twice that on busy ones.
A first run may be a little late, but should not waste time.
"""

SYNCS_AFTER_TRAINING = 60
"""Writes that the disk confirms one after another once training has ended: the last checkpoint and
the model's folder (20), decisions, the record and what was sent (18), MLflow's transactions (22).
Counted by strace; MLflow's journal confirms up to four writes for each of its own.
"""

SYNCS_AFTER_REGISTRATION = 10
"""Those of them that come behind the last wait for MLflow."""

SLOW_SYNC_SECONDS = 0.01
"""Seconds from which a confirmed write is slow: an SSD takes 0.001, a disk 0.01 to 0.03."""

MOST_SPREAD = 2.5
"""Factor on the median that a slow end counts at most: a busy disk once took 13 s, and is no rule.
"""

FIRST_SCORING_MARGIN = 1.15
"""Factor on the expected time for the held-out text, on a machine without history."""

TOLERANCE_SECONDS = 1.0
TOLERANCE_FRACTION = 0.005
"""Seconds, and fraction of the budget, that one run in twenty may be late: half of the promised
lateness. Otherwise nineteen runs would leave time unused for the sake of one.
"""

REMEMBERED = 20
"""Newest runs that the estimate uses."""

MOST_REMEMBERED_SECONDS = 1e6
"""Most seconds of a run's end; a file with more is damaged."""

Seconds = Annotated[
    float, Field(strict=True, ge=0, lt=MOST_REMEMBERED_SECONDS, allow_inf_nan=False)
]

SECONDS_PER_HOUR = 3600.0

FIXED_STAGES = ("start-up", "orchestration", "check", "registration", "end")
"""Stages of the ledger that take as long in a short run as in a long one."""

FIRST_FIXED_SECONDS = 4.0
"""Seconds of the fixed stages in a home without history: half of the quickest run that was measured
(two cores, a home in use), so that only hopeless budgets are refused.
"""

MOST_FIXED_SECONDS = 8.0
"""Seconds from which no budget is refused: runs with busy neighbors took 28 s."""

LEAST_RUNS = 3
"""Runs before their figures replace the first ones: a single one may have been disturbed."""

WORKING_SECONDS = 4.0
"""Seconds besides the fixed stages: reading a text, planning, scoring, and two seconds of training.
"""

FIRST_WORKING_SECONDS = 18.0
"""Seconds of a budget that keeps its deadline in a fresh home on two cores: 0.005 h."""


class Closing(NamedTuple):
    """Seconds reserved for the end of a run, and the factor on the expected time for scoring."""

    seconds: float
    scoring_margin: float = 1.0


class EndConditions(NamedTuple):
    """What slows the end of a run down: neighbors on its cores, and a disk whose confirmation of a
    write takes `sync_seconds`.
    """

    slowdown: float = 1.0
    sync_seconds: float = 0.0

    @property
    def seconds_after_waits(self) -> float:
        """Seconds of the writes that follow the last wait for MLflow."""
        return SYNCS_AFTER_REGISTRATION * self.sync_seconds

    def reserve(self, closing: Closing) -> Closing:
        """Return what to keep for the end, where earlier runs say `closing`."""
        seconds = closing.seconds
        if self.sync_seconds >= SLOW_SYNC_SECONDS:
            seconds = max(seconds, FIRST_CLOSING_SECONDS + SYNCS_AFTER_TRAINING * self.sync_seconds)
        return closing._replace(seconds=seconds * self.slowdown)


class RememberedSeconds(Remembered[float]):
    """Seconds of the last runs, in a small file under LIGHTLM_HOME."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, TypeAdapter(Seconds), REMEMBERED)

    def record(self, value: float) -> None:
        """Remember the seconds of one more run."""
        super().record(round(value, 3))


class ClosingTimes(RememberedSeconds):
    """Seconds of the last runs from the last step to the end, without the final score."""

    def __init__(self, home: Path) -> None:
        super().__init__(home / "closing_seconds.json")

    def estimate(self, budget_seconds: float) -> Closing:
        """Return the 95th percentile less the tolerated lateness, but at least the median."""
        seconds = sorted(self.read())
        if not seconds:
            return Closing(FIRST_CLOSING_SECONDS, FIRST_SCORING_MARGIN)
        # The first guess counts as one run more: a single run means little.
        usual = statistics.median_low([*seconds, FIRST_CLOSING_SECONDS])
        slow = min(seconds[min(len(seconds) - 1, int(0.95 * len(seconds)))], MOST_SPREAD * usual)
        tolerance = max(TOLERANCE_SECONDS, TOLERANCE_FRACTION * budget_seconds)
        return Closing(max(usual, slow - tolerance, 0.0))


class FixedTimes(RememberedSeconds):
    """Seconds of the last runs that no budget shortens: those of FIXED_STAGES."""

    def __init__(self, home: Path) -> None:
        super().__init__(home / "fixed_seconds.json")

    def find_least(self) -> float:
        """Return the seconds that a run takes here at least, whatever it trains."""
        known = self.read()
        return (
            min([*known, MOST_FIXED_SECONDS]) if len(known) >= LEAST_RUNS else FIRST_FIXED_SECONDS
        )

    def check(self, hours: float) -> None:
        """Refuse a budget that no run on this machine can keep.

        Raises:
            ParameterError: naming the smallest hours that work here.
        """
        least = self.find_least()
        given = hours * SECONDS_PER_HOUR
        if given >= least:
            return

        smallest = (
            least + WORKING_SECONDS if len(self.read()) >= LEAST_RUNS else FIRST_WORKING_SECONDS
        )
        raise ParameterError(
            f"budget.hours is {hours:g}, {given:.2g} s, but starting, checking and registering "
            f"alone take at least {least:.0f} s here; give --hours "
            f"{math.ceil(1000 * smallest / SECONDS_PER_HOUR) / 1000:g} or more"
        )

    def record_ledger(self, entries: Mapping[str, float]) -> None:
        """Remember the seconds of one run, from its ledger."""
        self.record(sum(entries.get(stage, 0.0) for stage in FIXED_STAGES))
