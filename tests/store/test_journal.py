"""Tests of journals: what was appended is read back, a torn tail is cut, a flipped bit ends the reading."""

import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightlm.store.journal import Journal, frame, read_journal

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.lists(st.dictionaries(st.text(), VALUES, max_size=4), max_size=6)


def read(path: Path, offset: int = 0) -> list[dict]:
    return [record for record, _ in read_journal(path, offset)]


@given(records=RECORDS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_appended_is_read_back_in_order(tmp_path: Path, records: list[dict]) -> None:
    path = tmp_path / "journal"
    path.unlink(missing_ok=True)
    journal = Journal(path)
    for record in records:
        journal.append(record)
    journal.close()
    assert read(path) == records


@given(records=RECORDS.filter(bool), cut=st.integers(1, 400))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_torn_tail_costs_no_whole_record_and_is_cut_on_opening(tmp_path: Path, records: list[dict], cut: int) -> None:
    path = tmp_path / "journal"
    lines = [frame(record) for record in records]
    content = b"".join(lines)
    kept = max(0, len(content) - cut)
    path.write_bytes(content[:kept])
    whole, end = 0, 0
    for line in lines:
        if end + len(line) <= kept:
            whole, end = whole + 1, end + len(line)
        else:
            break
    journal = Journal(path)
    journal.append({"after": True})
    journal.close()
    assert read(path) == [*records[:whole], {"after": True}]


def test_a_flipped_bit_ends_the_reading_before_it(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    content = bytearray(frame({"a": 1}) + frame({"b": 2}) + frame({"c": 3}))
    content[len(frame({"a": 1})) + 12] ^= 4
    path.write_bytes(bytes(content))
    assert read(path) == [{"a": 1}]


def test_reading_goes_on_from_an_offset(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.append({"n": 1})
    offset = next(iter(read_journal(path)))[1]
    journal.append({"n": 2}, durable=True)
    journal.close()
    assert read(path, offset) == [{"n": 2}]
    assert read(tmp_path / "missing") == []


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    threads = [
        threading.Thread(target=lambda k=k: [journal.append({"k": k, "text": "x" * 500}) for _ in range(100)])
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    assert len(read(tmp_path / "journal")) == 400


def test_a_closed_journal_refuses(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.close()
    with pytest.raises(ValueError, match="closed"):
        journal.append({})
