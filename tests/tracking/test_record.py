"""Tests of the records of a run's journal: what was written reads back, of today and of earlier versions."""

import json
from pathlib import Path

import pytest

from lightlm.store.journal import Journal
from lightlm.tracking.record import (
    JOURNAL,
    RECORD,
    Champion,
    Finish,
    Metrics,
    Params,
    Start,
    Text,
    append_record,
    is_finished,
    read_records,
    sample_path,
)


def start(name: str) -> Start:
    return Start(time_ms=1, name=name, experiment="lightlm", run_key="r", tags={}, description="")


def test_a_records_json_is_what_version_0_1_wrote_byte_for_byte() -> None:
    written = [
        '{"kind":"start","time_ms":1,"name":"n","experiment":"e","run_key":"r","system_metrics":true,"tags":{"a":"b"},"description":"d"}',
        '{"kind":"params","time_ms":2,"values":{"budget.hours":"0.5"}}',
        '{"kind":"metrics","time_ms":3,"step":7,"values":{"train/loss":NaN,"a":1.5}}',
        '{"kind":"tags","time_ms":4,"values":{"a":"b"}}',
        '{"kind":"text","time_ms":5,"path":"plan.json","content":"{}"}',
        '{"kind":"dataset","time_ms":6,"values":{"name":"n","num_bytes":3,"record":{"left_out":[]}}}',
        '{"kind":"champion","time_ms":7,"names":["a","b"],"origin":{"source":"s","config":null}}',
        '{"kind":"finish","time_ms":8,"status":"KILLED"}',
    ]
    for line in written:
        record = RECORD.validate_python(json.loads(line))
        assert json.dumps(record.model_dump(mode="json"), separators=(",", ":")) == line


def test_an_earlier_versions_question_for_one_model_still_reads() -> None:
    record = RECORD.validate_python({"kind": "champion", "time_ms": 1, "model_name": "notes"})
    assert record == Champion(time_ms=1, names=["notes"])


def test_records_of_other_versions_are_skipped_and_the_offset_goes_past_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path / JOURNAL)
    append_record(journal, Metrics(time_ms=1, step=1, values={"a": 1.0}))
    journal.append({"kind": "mood", "time_ms": 2})
    journal.append({"kind": "metrics", "time_ms": 3, "values": "none"})
    append_record(journal, Finish(time_ms=4, status="FINISHED"))
    journal.close()
    records = list(read_records(tmp_path))
    assert [record.time_ms for record, _ in records] == [1, 4]
    assert records[-1][1] == (tmp_path / JOURNAL).stat().st_size
    assert [record.time_ms for record, _ in read_records(tmp_path, records[0][1])] == [4]
    assert "skipped" in caplog.text


def test_a_runs_hours_are_in_its_start_and_its_params() -> None:
    names = ("train-0.1h-wikitext", "train-1e-05h-x", "retrain-2h-h-h", "retrain", "x-1.2.3h-y")
    assert [start(name).hours for name in names] == [0.1, 1e-05, 2.0, None, None]
    assert Params(time_ms=1, values={"budget.hours": "0.5"}).hours == 0.5
    assert Params(time_ms=1, values={}).hours is None


def test_a_sample_says_after_which_step_it_was_written() -> None:
    assert sample_path(3) == "samples/step-0000003.txt"
    assert Text(time_ms=1, path=sample_path(3), content="").sample_step == 3
    assert Text(time_ms=1, path="samples.html", content="").sample_step is None


def test_a_run_that_started_again_is_not_finished(tmp_path: Path) -> None:
    journal = Journal(tmp_path / JOURNAL)
    assert not is_finished(tmp_path)
    for record, expected in (
        (start("a"), False),
        (Finish(time_ms=2, status="KILLED"), True),
        (start("a"), False),
    ):
        append_record(journal, record)
        assert is_finished(tmp_path) is expected
    journal.close()
