"""What a run leaves for later plans: seconds as they would be alone."""

from pathlib import Path

import pytest

from lightlm.budget.lead import LeadTimes
from lightlm.budget.reserve import ClosingTimes
from lightlm.runs.history import remember_the_end
from tests.runs.test_summary import summary_of

LEDGER = {"start-up": 6.0, "check": 3.0, "training": 9.0, "final evaluation": 3.0, "gate": 1.5}


@pytest.mark.parametrize(("slowdown", "lead", "closing"), [(1.0, 9.0, 4.5), (3.0, 3.0, 1.5)])
def test_seconds_in_a_crowd_count_as_those_that_it_takes_alone(
    home: Path, slowdown: float, lead: float, closing: float
) -> None:
    ClosingTimes(home).record(1.0)  # a home's first run does not count
    summary = summary_of(factor=0.0).model_copy(
        update={"ledger": LEDGER, "trained_until_seconds": 18.0}
    )
    remember_the_end(summary, home, 27.0, slowdown)
    assert LeadTimes(home).read() == [lead]
    assert ClosingTimes(home).read() == [1.0, closing]
