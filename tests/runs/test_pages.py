"""The page of a decision: where training started, the comparison, and what follows from it."""

import pytest

from lightlm.budget.continuation import Start
from lightlm.evaluation.comparison import Comparison
from lightlm.params import load_params
from lightlm.runs.pages import describe_decision, describe_ledger
from lightlm.runs.values import StartingPoint

PARAMS = load_params()
SCRATCH = StartingPoint(PARAMS)


def compare(*, high: float, num_documents: int = 100) -> Comparison:
    """Return a comparison whose interval ends at `high`."""
    return Comparison(
        champion_version="3",
        champion_bits_per_byte=2.0,
        challenger_bits_per_byte=1.9,
        difference=-0.1,
        low=-0.2,
        high=high,
        num_documents=num_documents,
        num_better_documents=60,
        num_left_out=0,
        num_bytes=1000,
        lowest=-0.3,
        highest=0.1,
        histogram=[1] * 41,
    )


def test_without_a_comparison_the_page_says_why() -> None:
    page = describe_decision(PARAMS, SCRATCH, None, "")
    assert page.blocks == ["Nothing was compared: there is no champion yet."]
    page = describe_decision(PARAMS, SCRATCH, None, "it learned another text")
    assert page.blocks == ["Nothing was compared: it learned another text."]


def test_the_page_begins_with_the_start_and_its_reason() -> None:
    choice = Start(
        version="3", scratch_bits_per_byte=2.0, continued_bits_per_byte=1.5, reason="it is better"
    )
    page = describe_decision(PARAMS, StartingPoint(PARAMS, choice), compare(high=-0.01), "")
    assert page.blocks[0] == "Training started from version 3: it is better."


@pytest.mark.parametrize(
    ("comparison", "verdict"),
    [
        (compare(high=-0.01), "the challenger becomes champion"),
        (compare(high=0.01), "the champion stays"),
        (compare(high=-0.01, num_documents=2), "2 documents are too few"),
    ],
)
def test_the_verdict_follows_the_interval_and_the_number_of_documents(
    comparison: Comparison, verdict: str
) -> None:
    assert verdict in str(describe_decision(PARAMS, SCRATCH, comparison, "").blocks[0])


def test_the_page_of_the_ledger_adds_all_stages_up() -> None:
    text = describe_ledger({"data": 1.0, "training": 8.0}, 10.0).to_markdown()
    assert "9.00" in text
    assert "90.0%" in text
