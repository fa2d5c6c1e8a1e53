"""What a plan would reach on machines that one does not have, with the doubt of their figures."""

from collections.abc import Callable, Iterable

from pydantic import BaseModel

from lightlm.budget.forecast import HORIZONS
from lightlm.budget.machines import load_machine
from lightlm.budget.plan import Plan
from lightlm.budget.probe import Probe
from lightlm.budget.scaling import predict_loss
from lightlm.model.accounting import count_matrix_parameters

HERE = "this machine"
"""Name of the machine that was measured, among the others."""


class MachineForecast(BaseModel, frozen=True):
    """What a budget would reach on a machine: bits per byte with an interval, and the shape."""

    machine: str
    title: str
    budget: str
    hours: float
    shape: str
    num_parameters: int
    tokens: int
    bits_per_byte: float
    low: float
    high: float
    is_measured: bool = False


def compare_machines(
    names: Iterable[str], plan_with: Callable[[Probe, float], Plan], here: Probe | None = None
) -> list[MachineForecast]:
    """Return the forecast of each horizon on each machine, and on the one measured as `here`.

    `plan_with` plans from figures for hours.
    """
    found = []
    if here is not None:
        found += [
            describe(HERE, "measured", budget, seconds, plan_with(here, seconds / 3600), True)
            for budget, seconds in HORIZONS
        ]

    for name in names:
        machine = load_machine(name)
        figures = machine.to_probe()
        for budget, seconds in HORIZONS:
            plan = widen(plan_with(figures, seconds / 3600), machine.doubt)
            found.append(describe(name, machine.title, budget, seconds, plan, False))

    return found


def describe(
    name: str, title: str, budget: str, seconds: float, plan: Plan, is_measured: bool
) -> MachineForecast:
    """Return a plan as the forecast of a machine."""
    return MachineForecast(
        machine=name,
        title=title,
        budget=budget,
        hours=seconds / 3600,
        shape=plan.summary(),
        num_parameters=plan.num_parameters,
        tokens=plan.expected_tokens,
        bits_per_byte=plan.predicted_bits_per_byte,
        low=plan.predicted_low,
        high=plan.predicted_high,
        is_measured=is_measured,
    )


def widen(plan: Plan, doubt: float) -> Plan:
    """Return the plan with the interval of a speed that is wrong by the fraction `doubt`."""
    return plan.model_copy(
        update={
            "predicted_low": plan.predicted_low * _change(plan, 1 + doubt),
            "predicted_high": plan.predicted_high * _change(plan, 1 - doubt),
        }
    )


def _change(plan: Plan, speed: float) -> float:
    """Return the factor on the loss if training reads `speed` times the tokens."""
    size = count_matrix_parameters(plan.model)
    seen = plan.expected_tokens * plan.bytes_per_token
    unique = seen / max(plan.expected_epochs, 1e-9)
    after = predict_loss(size, speed * seen, unique, plan.difficulty).bits_per_byte
    return after / predict_loss(size, seen, unique, plan.difficulty).bits_per_byte
