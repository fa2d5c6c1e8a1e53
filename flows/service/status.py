"""The status of the service: each part, since when, its answer, and the next schedules."""

import os
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel

from lightlm.tracking.runs import list_runs
from lightlm_flows.service.deployments import POOL, open_server
from lightlm_flows.service.lifecycle import is_answering, worker_environment
from lightlm_flows.service.record import KEEPER, PARTS, SERVERS, Service, read_service
from lightlm_flows.service.servers import open_secrets

NEXT_RUNS = 5
NEWEST_RUNS = 20
"""Runs of this machine that are searched for running ones."""


class PartStatus(BaseModel, frozen=True):
    """A part of the service. `answers` is None where there is nothing to ask."""

    name: str
    is_running: bool
    answers: bool | None = None
    url: str | None = None
    pid: int | None = None
    since: datetime | None = None
    num_restarts: int = 0


class NextRun(BaseModel, frozen=True):
    """A flow run that a schedule has planned."""

    name: str
    at: datetime


class CurrentRun(BaseModel, frozen=True):
    """A training that runs on this machine, started by whatever."""

    run: str
    name: str
    since: datetime


class Status(BaseModel, frozen=True):
    """The service of a home, and what happens in it."""

    home: str
    is_started: bool
    parts: tuple[PartStatus, ...] = ()
    next_runs: tuple[NextRun, ...] = ()
    current_runs: tuple[CurrentRun, ...] = ()


def read_status(home: Path) -> Status:
    """Return what runs here. It starts nothing and holds up nothing."""
    current = tuple(
        CurrentRun(run=run.run, name=run.name, since=datetime.fromtimestamp(run.started_at, UTC))
        for run in list_runs(home, NEWEST_RUNS)
        if run.state == "running"
    )
    service = read_service(home)
    if service is None:
        return Status(home=str(home), is_started=False, current_runs=current)

    secrets = open_secrets(home)
    answering = {
        name: service.runs(name) and is_answering(service, name, secrets) for name in SERVERS
    }
    is_online = False
    next_runs = ()
    if answering["prefect"]:
        os.environ.update(worker_environment(home, service, secrets))
        is_online, next_runs = ask_prefect(home)

    answering["worker"] = service.runs("worker") and is_online
    urls = {"prefect": service.prefect_url, "mlflow": service.mlflow_url}
    return Status(
        home=str(home),
        is_started=True,
        parts=tuple(
            describe_part(service, name, answering.get(name), urls.get(name))
            for name in (*PARTS, KEEPER)
        ),
        next_runs=next_runs,
        current_runs=current,
    )


def describe_part(
    service: Service, name: str, is_answering: bool | None, url: str | None
) -> PartStatus:
    """Return a part's state; one that has died keeps the number of its last process."""
    found = [part for part in service.processes if part.name == name]
    if not found:
        return PartStatus(name=name, is_running=False, answers=is_answering, url=url)

    (part,) = found
    return PartStatus(
        name=name,
        is_running=part.find() is not None,
        answers=is_answering,
        url=url,
        pid=part.pid,
        since=datetime.fromtimestamp(part.created_at, UTC),
        num_restarts=part.num_restarts,
    )


def ask_prefect(home: Path) -> tuple[bool, tuple[NextRun, ...]]:
    """Return whether the pool has a worker that is online, and the runs that are planned next."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType, WorkerStatus
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.exceptions import ObjectNotFound

    scheduled = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
    )

    with open_server(home) as client:
        try:
            workers = client.read_workers_for_work_pool(POOL)
        except ObjectNotFound:  # the service starts at this moment
            workers = []
        planned = client.read_flow_runs(
            flow_run_filter=scheduled,
            sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC,
            limit=NEXT_RUNS,
        )

    times = [
        (run.name, run.next_scheduled_start_time or run.expected_start_time) for run in planned
    ]
    is_online = any(worker.status == WorkerStatus.ONLINE for worker in workers)

    return is_online, tuple(NextRun(name=name, at=at) for name, at in times if at is not None)


def describe_status(status: Status, now: datetime) -> list[str]:
    """Return the status as lines."""
    lines = [
        f"{run.name} ({run.run}) trains since {format_since(run.since, now)}"
        for run in status.current_runs
    ]
    if not status.is_started:
        return [*lines, f"No service was started in {status.home}; `lightlm up` starts one"]

    for part in status.parts:
        state = (
            "running" if part.answers is None else "answers" if part.answers else "does not answer"
        )
        if not part.is_running:
            state = "has died" if part.pid else "is missing"
        since = f", since {format_since(part.since, now)}" if part.is_running and part.since else ""
        restarts = f", started again {part.num_restarts} x" if part.num_restarts else ""
        lines.append(f"{part.name:<8} {part.url or '':<22} {state}{since}{restarts}")

    lines += [
        f"next     {run.at.astimezone():%Y-%m-%d %H:%M}  {run.name}" for run in status.next_runs
    ]
    if not all(part.is_running for part in status.parts):
        lines.append("`lightlm up` starts what is missing")

    return lines


def format_since(moment: datetime, now: datetime) -> str:
    """Return a moment with how long it is ago."""
    minutes = int((now - moment).total_seconds() // 60)
    ago = (
        f"{minutes} min"
        if minutes < 120
        else f"{minutes // 60} h"
        if minutes < 2880
        else f"{minutes // 1440} days"
    )
    return f"{moment.astimezone():%Y-%m-%d %H:%M} ({ago})"
