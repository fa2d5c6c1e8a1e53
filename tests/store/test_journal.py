"""Tests of journals: what was appended is read back, a torn tail is cut, a flipped bit costs one
record.
"""

import errno
import os
import threading
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightlm.errors import StoreError
from lightlm.store.disk import BLOCK_BYTES
from lightlm.store.journal import Journal, frame, read_journal

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.lists(st.dictionaries(st.text(), VALUES, max_size=4), max_size=6)


def read(path: Path, offset: int = 0) -> list[dict]:
    return [record for record, _ in read_journal(path, offset)]


@given(records=RECORDS)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_is_appended_is_read_back_in_order(tmp_path: Path, records: list[dict]) -> None:
    path = tmp_path / "journal"
    path.unlink(missing_ok=True)
    journal = Journal(path)
    for record in records:
        journal.append(record)
    journal.close()
    assert read(path) == records


@given(records=RECORDS.filter(bool), cut=st.integers(1, 400))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_torn_tail_costs_no_whole_record_and_is_cut_on_opening(
    tmp_path: Path, records: list[dict], cut: int
) -> None:
    path = tmp_path / "journal"
    lines = [frame(record) for record in records]
    content = b"".join(lines)
    kept = max(0, len(content) - cut)
    path.write_bytes(content[:kept])
    whole = 0
    end = 0

    for line in lines:
        if end + len(line) <= kept:
            whole = whole + 1
            end = end + len(line)
        else:
            break

    journal = Journal(path)
    journal.append({"after": True})
    journal.close()
    assert read(path) == [*records[:whole], {"after": True}]


def test_a_flipped_bit_costs_its_record_and_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal"
    content = bytearray(frame({"a": 1}) + frame({"b": 2}) + frame({"c": 3}))
    content[len(frame({"a": 1})) + 12] ^= 4
    path.write_bytes(bytes(content))
    assert read(path) == [{"a": 1}, {"c": 3}]
    assert "is damaged at byte" in caplog.text


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
        threading.Thread(
            target=lambda k=k: [journal.append({"k": k, "text": "x" * 500}) for _ in range(100)]
        )
        for k in range(4)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    assert len(read(tmp_path / "journal")) == 400


def test_half_a_line_on_a_full_disk_swallows_no_later_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    calls = 0

    def write_half(handle: int, content: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.ENOSPC, "full")
        return real(handle, content[:7]) if calls == 1 else real(handle, content)

    journal = Journal(tmp_path / "journal")
    monkeypatch.setattr(os, "write", write_half)
    with pytest.raises(StoreError, match="the disk is full"):
        journal.append({"lost": 1})
    journal.append({"kept": 2})
    journal.close()
    assert read(tmp_path / "journal") == [{"kept": 2}]


@pytest.mark.parametrize("payload", [b"[1]", b"3", b"{", b"[" * 100_000])
def test_a_line_that_is_framed_and_no_record_is_left_out(tmp_path: Path, payload: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"%08x " % zlib.crc32(payload) + payload + b"\n" + frame({"a": 1}))
    assert read(path) == [{"a": 1}]


def test_a_sign_in_place_of_a_digit_is_damage(tmp_path: Path) -> None:
    line = next(f for f in (frame({"n": n}) for n in range(10_000)) if f.startswith(b"0"))
    (tmp_path / "journal").write_bytes(b"+" + line[1:] + frame({"a": 1}))
    assert read(tmp_path / "journal") == [{"a": 1}]


def test_a_torn_tail_longer_than_a_block_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(frame({"a": 1}) + b"x" * (BLOCK_BYTES + 10))
    Journal(path).close()
    assert path.read_bytes() == frame({"a": 1})


def test_a_closed_journal_refuses(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.close()
    with pytest.raises(ValueError, match="closed"):
        journal.append({})


def test_a_record_is_framed_as_earlier_versions_framed_it() -> None:
    assert (
        frame({"a": [1, "caf\u00e9"], "b": None}) == b'e15fb5bb {"a":[1,"caf\\u00e9"],"b":null}\n'
    )


def test_a_journal_is_the_frames_of_its_records_and_private(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    for number in range(3):
        journal.append({"n": number})
    journal.close()
    frames = [frame({"n": number}) for number in range(3)]
    assert (tmp_path / "journal").read_bytes() == b"".join(frames)
    assert os.name == "nt" or (tmp_path / "journal").stat().st_mode & 0o777 == 0o600
    ends = [sum(map(len, frames[: number + 1])) for number in range(3)]
    assert [offset for _, offset in read_journal(tmp_path / "journal")] == ends


def test_an_empty_line_at_the_start_stays_and_is_no_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"\n")
    Journal(path).close()
    assert path.read_bytes() == b"\n"
    path.write_bytes(b"x")
    Journal(path).close()
    assert path.read_bytes() == b"", "one byte without an end is a torn tail, too"
    path.write_bytes(b"\n" + frame({"a": 1}) + b"torn\n")
    assert read(path) == [{"a": 1}]
    wanted = f"{path} is damaged at byte {1 + len(frame({'a': 1}))}: a record is left out"
    assert [record.getMessage() for record in caplog.records] == [wanted]


def test_a_journal_that_the_disk_refuses_is_named_and_holds_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    opened = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0
    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(StoreError) as caught:
        Journal(tmp_path / "journal")
    assert str(tmp_path / "journal") in str(caught.value)
    if opened:
        assert len(list(Path("/proc/self/fd").iterdir())) == opened
