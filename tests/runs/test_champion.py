"""What a run says of a comparison that its time did not suffice for; test_retrain has the rest."""

from lightlm.evaluation.comparison import ADVICE, FEWEST_DOCUMENTS, compare
from lightlm.evaluation.score import DocumentScores
from lightlm.runs.champion import advise_hours
from tests.runs.test_summary import PLAN


def test_the_hours_that_are_named_are_those_in_which_enough_documents_are_scored() -> None:
    plan = PLAN.model_copy(update={"training_seconds": 30.0, "reserve_seconds": 10.0})
    # 20 s for 4 kB: 6 documents of 4 kB take 120 s, which are 15 % of 800 s; 40 s were there.
    advice = advise_hours(0.02, [4000] * 20, 4000, 20.0, plan)
    assert "time ended the score after 4,000 bytes; give --hours 0.24 or more" in advice
    assert 0.02 + (800 - 40) / 3600 <= 0.24


def test_a_comparison_of_too_few_documents_says_what_to_do() -> None:
    scores = DocumentScores(nats=[700.0, 800.0], num_bytes=[500, 500])
    found = compare("1", scores, scores)
    assert found is not None
    assert found.verdict.endswith(
        f"2 documents are too few to tell ({FEWEST_DOCUMENTS} at least); {ADVICE}"
    )
    told = found.model_copy(update={"advice": "give --hours 2 or more"}).verdict
    assert told.endswith("to tell (6 at least); give --hours 2 or more")
