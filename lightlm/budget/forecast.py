"""The forecast: scores of other budgets on this text and machine; the accuracy of plans."""

from collections.abc import Callable, Iterable

from pydantic import BaseModel, Field

from lightlm.budget.history import FinishedRun
from lightlm.budget.plan import Plan

LEAST_RUNS = 3
"""Finished runs on this hardware before a forecast is shown: without them only the law would guess.
"""

HORIZONS = (("5 min", 300.0), ("1 h", 3600.0), ("overnight, 8 h", 8 * 3600.0))
"""Budgets of the forecast, by name, in seconds."""


class Forecast(BaseModel, frozen=True):
    """The result of a budget: the shape in a line, and bits per byte with an interval."""

    name: str
    hours: float
    shape: str
    bits_per_byte: float
    low: float
    high: float


def forecast(plan_for: Callable[[float], Plan]) -> list[Forecast]:
    """Return the forecast of each horizon; `plan_for` plans for hours from measured figures."""
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


class PlanAccuracy(BaseModel, frozen=True, serialize_by_alias=True):
    """Accuracy of the plans of some runs. A `mean_error` above 0: worse than predicted."""

    num_runs: int
    num_as_predicted: int = Field(serialization_alias="num_as_foreseen")
    mean_error: float
    mean_absolute_error: float


def judge_plans(runs: Iterable[FinishedRun]) -> PlanAccuracy:
    """Return how often the score lay within its plan's interval, and the relative errors."""
    listed = list(runs)
    errors = [run.bits_per_byte / run.predicted_bits_per_byte - 1 for run in listed]
    count = max(1, len(listed))
    return PlanAccuracy(
        num_runs=len(listed),
        num_as_predicted=sum(run.is_as_predicted for run in listed),
        mean_error=sum(errors) / count,
        mean_absolute_error=sum(abs(error) for error in errors) / count,
    )
