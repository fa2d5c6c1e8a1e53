import errno
import os
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlm.budget.ledger import Ledger, LedgerKeeper, Spent, read_spent
from lightlm.store import disk
from lightlm.store.journal import Journal, read_journal


class FakeClock:
    def __init__(self, now: float = 50.0):
        self.now = now

    def __call__(self):
        return self.now


def test_every_second_is_charged_to_the_stage_that_it_was_spent_in():
    clock = FakeClock()
    ledger = Ledger(1.0, clock=clock)
    clock.now += 1
    with ledger.stage("data"):
        clock.now += 2
    clock.now += 4
    with ledger.stage("training"):
        clock.now += 8
    clock.now += 16
    assert ledger.close() == {"orchestration": 21, "data": 2, "training": 8}


def test_an_inner_stage_is_charged_for_itself_only():
    clock = FakeClock()
    ledger = Ledger(1.0, clock=clock)
    with ledger.stage("training"):
        clock.now += 1
        with ledger.stage("validation"):
            clock.now += 2
            with ledger.stage("training"):
                clock.now += 4
        clock.now += 8
    assert ledger.close() == {"orchestration": 0, "training": 13, "validation": 2}


def test_what_ran_before_the_ledger_was_there_is_start_up():
    clock = FakeClock(now=50.0)
    ledger = Ledger(1.0, started_at=47.0, clock=clock)
    clock.now += 2
    assert ledger.close() == {"start-up": 3, "orchestration": 2}
    assert ledger.elapsed_seconds == 5


def test_the_deadline_is_the_start_and_the_hours():
    clock = FakeClock(now=50.0)
    ledger = Ledger(0.01, started_at=40.0, clock=clock)
    assert ledger.budget_seconds == pytest.approx(36)
    assert ledger.deadline == pytest.approx(76)
    assert ledger.remaining_seconds == pytest.approx(26)
    clock.now += 30
    assert ledger.remaining_seconds == pytest.approx(-4)


def test_a_stage_that_fails_is_charged_too():
    clock = FakeClock()
    ledger = Ledger(1.0, clock=clock)
    with pytest.raises(RuntimeError), ledger.stage("data"):
        clock.now += 3
        raise RuntimeError
    clock.now += 1
    assert ledger.close() == {"orchestration": 1, "data": 3}


def test_excluded_seconds_move_the_deadline_and_are_charged_to_nothing():
    clock = FakeClock()
    ledger = Ledger(1.0, clock=clock)
    deadline = ledger.deadline
    with ledger.stage("data"):
        clock.now += 10
        ledger.exclude(8.0)
    assert ledger.deadline == deadline + 8
    assert ledger.elapsed_seconds == pytest.approx(2)
    assert ledger.close() == {"orchestration": 0, "data": pytest.approx(2)}


def test_a_stage_can_be_split_but_not_into_more_than_it_had():
    clock = FakeClock()
    ledger = Ledger(1.0, clock=clock)
    with ledger.stage("training"):
        clock.now += 10
    ledger.split("training", {"validation": 3.0, "checkpoint": 100.0, "nothing": 0.0})
    ledger.split("unknown", {"validation": 5.0})
    assert ledger.close() == {"orchestration": 0, "training": 0, "validation": 3, "checkpoint": 7}


moves = st.lists(
    st.tuples(
        st.sampled_from(["in", "out", "wait", "exclude", "split"]),
        st.sampled_from("abc"),
        st.floats(0, 100),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(moves=moves, before=st.floats(0, 100))
def test_the_entries_always_sum_to_the_elapsed_time(moves, before):
    clock = FakeClock(now=1000.0)
    ledger = Ledger(1.0, started_at=1000.0 - before, clock=clock)
    opened = []

    for kind, name, seconds in moves:
        if kind == "in":
            opened.append(ledger.stage(name))
            opened[-1].__enter__()
        elif kind == "out" and opened:
            opened.pop().__exit__(None, None, None)
        elif kind == "exclude":
            ledger.exclude(min(seconds, ledger.elapsed_seconds))
        elif kind == "split":
            ledger.split(name, {"d": seconds})
        clock.now += seconds

    assert sum(ledger.close().values()) == pytest.approx(ledger.elapsed_seconds, abs=1e-6)


def test_a_continued_ledger_charges_what_was_spent_before_and_nothing_between():
    clock = FakeClock(now=1000.0)
    ledger = Ledger(
        0.01, started_at=998.0, clock=clock, spent=Spent(10.0, {"start-up": 1.0, "data": 9.0})
    )
    assert ledger.elapsed_seconds == 12.0
    assert ledger.remaining_seconds == pytest.approx(24.0)
    with ledger.stage("data"):
        clock.now += 3.0
    assert ledger.close() == {"start-up": 3.0, "data": 12.0, "orchestration": 0.0}


def test_what_is_spent_is_kept_at_each_moment_with_the_open_stage(tmp_path):
    clock = FakeClock()
    path = tmp_path / "budget.journal"
    ledger = Ledger(1.0, clock=clock)
    with LedgerKeeper(ledger, path, every_seconds=3600.0) as keeper, ledger.stage("training"):
        clock.now += 5.0
        keeper.write()
        assert read_spent(path) == Spent(5.0, {"orchestration": 0.0, "training": 5.0})
    assert ledger.close() == {"orchestration": 0.0, "training": 5.0}


def test_the_side_thread_keeps_what_is_spent_without_being_asked(tmp_path):
    path = tmp_path / "budget.journal"
    ledger = Ledger(1.0)
    with LedgerKeeper(ledger, path, every_seconds=0.01):
        before = read_spent(path).seconds
        while read_spent(path).seconds <= before:
            time.sleep(0.01)


def test_a_torn_or_foreign_record_costs_only_itself(tmp_path):
    path = tmp_path / "budget.journal"
    with LedgerKeeper(Ledger(1.0, clock=FakeClock(), spent=Spent(7.0, {"data": 7.0})), path):
        pass
    with path.open("ab") as file:
        file.write(b'00000000 {"seconds":99.0,"entries":{}}\n0a1b2c3d {"sec')
    assert read_spent(path).seconds == 7.0
    assert read_spent(tmp_path / "none") == Spent()


def test_what_is_kept_is_rounded_to_milliseconds_and_durable(tmp_path, monkeypatch):
    synced = []
    clock = FakeClock()
    monkeypatch.setattr(disk.os, "fsync", lambda handle: synced.append(handle))
    keeper = LedgerKeeper(Ledger(1.0, clock=clock), tmp_path / "budget.journal")
    synced.clear()
    clock.now += 1.23456
    keeper.write()
    assert len(synced) == 1
    (record, _), *_ = read_journal(tmp_path / "budget.journal")
    assert record == {"seconds": 1.235, "entries": {"orchestration": 1.235}}


def test_a_disk_that_refuses_is_said_and_ends_no_run(tmp_path, monkeypatch, caplog):
    keeper = LedgerKeeper(Ledger(1.0, clock=FakeClock()), tmp_path / "budget.journal")

    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "write", refuse)
    keeper.write()
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith(
        f"what is spent cannot be kept: {tmp_path / 'budget.journal'} could not be written (Input"
    )


def test_the_side_thread_ends_with_the_process(tmp_path):
    before = set(threading.enumerate())
    with LedgerKeeper(Ledger(1.0), tmp_path / "budget.journal"):
        (thread,) = set(threading.enumerate()) - before
        assert thread.daemon
        assert thread.name == "ledger", "a dump of the stacks tells it from the others"


def test_what_is_spent_outside_and_in_the_innermost_stage_is_known_by_name():
    clock = FakeClock()
    ledger = Ledger(1.0, clock=clock)
    clock.now += 2.0
    assert ledger.spent() == Spent(2.0, {"orchestration": 2.0})
    with ledger.stage("outer"):
        with ledger.stage("inner"):
            clock.now += 3.0
        with ledger.stage("inner"):
            clock.now += 4.0
            assert ledger.spent() == Spent(9.0, {"orchestration": 2.0, "outer": 0.0, "inner": 7.0})


def test_a_record_of_other_types_is_passed_over_and_no_time_is_negative(tmp_path):
    path = tmp_path / "budget.journal"
    journal = Journal(path)
    journal.append({"seconds": 3.0, "entries": 5})
    journal.append({"seconds": -3.0, "entries": {"data": 0.25}})
    journal.close()
    assert read_spent(path) == Spent(0.0, {"data": 0.25})
