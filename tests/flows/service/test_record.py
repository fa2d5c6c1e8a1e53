"""The service's record: a part is found by what it is, not by what the clock says of its start."""

import os

from lightlm_flows.service.record import RunningProcess, describe_process


def test_a_part_is_found_though_the_clock_was_set_since() -> None:
    part = describe_process("worker", os.getpid())
    moved = part.model_copy(update={"created_at": part.created_at - 7200.0})
    found = moved.find()
    assert found is not None
    assert found.pid == os.getpid()


def test_another_process_with_the_number_is_not_the_part() -> None:
    part = describe_process("worker", os.getpid())
    assert part.model_copy(update={"identity": "another boot:17"}).find() is None


def test_a_record_without_an_identity_is_read_by_the_start() -> None:
    part = describe_process("worker", os.getpid())
    assert RunningProcess(name="worker", pid=part.pid, created_at=part.created_at).find()
    assert RunningProcess(name="worker", pid=part.pid, created_at=1.0).find() is None
