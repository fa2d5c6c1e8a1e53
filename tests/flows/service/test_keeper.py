"""How long a part that died waits before it is started again, and what `lightlm status`
says of it.
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lightlm_flows.service.keeper import (
    FIRST_SECONDS,
    MOST_SECONDS,
    STEADY_SECONDS,
    Waits,
    keep_service,
)
from lightlm_flows.service.record import (
    KEEPER,
    RunningProcess,
    Service,
    describe_process,
    read_service,
    record_service,
)
from lightlm_flows.service.status import CurrentRun, NextRun, PartStatus, Status, describe_status
from tests.command_line import CommandLine

NOW = 1_000_000.0


def die(waits: Waits, lived: float = 1.0) -> float:
    """Let a part die after `lived` seconds; return how long it waits, and let that pass."""
    part = RunningProcess(name="worker", pid=1, created_at=NOW - lived)
    seconds = waits.note_death(part, NOW)
    assert seconds is not None
    assert waits.note_death(part, NOW) is None, "a death is noted once"
    assert not waits.is_due("worker", NOW + seconds - 0.1)
    assert waits.is_due("worker", NOW + seconds)
    return seconds


def test_each_death_doubles_the_wait_up_to_a_bound() -> None:
    waits = Waits()
    seconds = [die(waits) for _ in range(9)]
    assert seconds == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert (seconds[0], seconds[-1]) == (FIRST_SECONDS, MOST_SECONDS)


def test_a_part_that_lived_long_waits_as_at_first() -> None:
    waits = Waits()
    assert [die(waits) for _ in range(4)][-1] == 8.0
    assert die(waits, lived=STEADY_SECONDS + 1) == FIRST_SECONDS
    assert die(waits) == 2 * FIRST_SECONDS


def test_a_keeper_ends_when_the_service_is_stopped_or_another_keeps_it(home: Path) -> None:
    (home / "service").mkdir()
    keep_service(home)
    other = RunningProcess(name=KEEPER, pid=os.getpid() + 1, created_at=0.0)
    record_service(home, Service(prefect_port=1, mlflow_port=2, processes=(other,)))
    keep_service(home)
    service = Service(prefect_port=1, mlflow_port=2).including(
        describe_process(KEEPER, os.getpid())
    )

    record_service(home, service)
    looks = iter([False, False, True])
    keep_service(home, lambda: next(looks))
    assert read_service(home) == service


def test_status_says_what_runs_since_when_and_what_is_to_do() -> None:
    now = datetime(2026, 12, 1, 12, 0, tzinfo=UTC)
    started = now - timedelta(minutes=90)
    status = Status(
        home="/home",
        is_started=True,
        parts=(
            PartStatus(
                name="prefect", is_running=True, answers=True, url="http://p", pid=1, since=started
            ),
            PartStatus(
                name="mlflow", is_running=True, answers=False, pid=2, since=started, num_restarts=3
            ),
            PartStatus(name="worker", is_running=False, answers=False, pid=3, since=started),
            PartStatus(name="keeper", is_running=False),
        ),
        next_runs=(NextRun(name="retrain", at=now + timedelta(hours=15)),),
        current_runs=(CurrentRun(run="a", name="train", since=started),),
    )

    lines = describe_status(status, now)
    assert "train (a) trains since" in lines[0]
    assert "answers, since" in lines[1]
    assert "(90 min)" in lines[1]
    assert "does not answer" in lines[2]
    assert lines[2].endswith("started again 3 x")
    assert "has died" in lines[3]
    assert "is missing" in lines[4]
    assert lines[5].endswith("retrain")
    assert lines[6] == "`lightlm up` starts what is missing"


def test_status_of_a_home_without_a_service_says_what_to_do(
    make_command_line: Callable[[], CommandLine],
) -> None:
    lightlm = make_command_line()
    said = lightlm("status")
    assert said.code == 0
    assert "`lightlm up` starts one" in said.out
    assert lightlm("status", "--json").json["is_started"] is False
