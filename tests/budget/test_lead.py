import json

from lightlm.budget.lead import (
    FIRST_LEAD_SECONDS,
    LEAST_TIMING_SECONDS,
    MOST_TIMING_SECONDS,
    LeadTimes,
)


def test_what_came_before_training_in_earlier_runs_is_expected_again(tmp_path):
    lead = LeadTimes(tmp_path)
    assert lead.estimate(10.0) == FIRST_LEAD_SECONDS + LEAST_TIMING_SECONDS
    for seconds in (3.0, 90.0, 4.0):
        lead.record_ledger(
            {"start-up": seconds - 1, "check": 1.0, "training": 50.0, "probe": 3.0, "end": 2.0}
        )
    assert lead.estimate(36_000.0) == 4.0 + MOST_TIMING_SECONDS


def test_a_damaged_file_is_as_none(tmp_path):
    (tmp_path / "lead_seconds.json").write_text(json.dumps({"a": 1}))
    assert LeadTimes(tmp_path).estimate(10.0) == FIRST_LEAD_SECONDS + LEAST_TIMING_SECONDS
