"""The forecast: what scores more hours would reach on this text with this machine, and how true
earlier plans were.
"""

from collections.abc import Callable, Iterable

from pydantic import BaseModel, ConfigDict

from lightlm.budget.history import FinishedRun
from lightlm.budget.plan import Plan

LEAST_RUNS = 3
"""Finished runs on this hardware before a forecast is shown: without them it is the law's guess
alone.
"""

HORIZONS = (("5 min", 300.0), ("1 h", 3600.0), ("overnight, 8 h", 8 * 3600.0))
"""What people ask about, and its seconds."""


class Forecast(BaseModel):
    """What a budget would reach: the shape in a line, and bits per byte with an interval."""

    model_config = ConfigDict(frozen=True)

    name: str
    hours: float
    shape: str
    bits_per_byte: float
    low: float
    high: float


def forecast(plan_for: Callable[[float], Plan]) -> list[Forecast]:
    """Return what each horizon would reach; `plan_for` plans for hours from figures that are
    measured already.
    """
    found = []
    for name, seconds in HORIZONS:
        plan = plan_for(seconds / 3600)
        found.append(
            Forecast(
                name=name,
                hours=seconds / 3600,
                shape=plan.summary(),
                bits_per_byte=plan.predicted_bits_per_byte,
                low=plan.predicted_low,
                high=plan.predicted_high,
            )
        )

    return found


class Calibration(BaseModel):
    """How true the plans of some runs were. `mean_error` is signed: above 0, runs were worse than
    foreseen.
    """

    model_config = ConfigDict(frozen=True)

    num_runs: int
    num_as_foreseen: int
    mean_error: float
    mean_absolute_error: float


def judge_plans(runs: Iterable[FinishedRun]) -> Calibration:
    """Return how often the score lay within its plan's interval, and the relative errors."""
    listed = list(runs)
    errors = [run.bits_per_byte / run.predicted_bits_per_byte - 1 for run in listed]
    count = max(1, len(listed))
    return Calibration(
        num_runs=len(listed),
        num_as_foreseen=sum(run.is_as_predicted for run in listed),
        mean_error=sum(errors) / count,
        mean_absolute_error=sum(abs(error) for error in errors) / count,
    )
