"""The deployments on a Prefect server: the work pool, the end of zombies, and schedules.

A second deployment keeps schedules that a user switched or added. PREFECT_API_URL must name a
server; nothing here starts one.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightlm.child_process import SAFE_PATH, python_command
from lightlm.errors import InputError, LightLMError
from lightlm_flows.service.prefect_file import FOLDER, list_names, read_settings
from lightlm_flows.service.work_pools import PoolVariables, ProcessVariables

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import DeploymentSchedule
    from prefect.client.schemas.responses import DeploymentResponse

POOL = "lightlm"
ZOMBIES = "lightlm-crash-zombies"
SILENCE_SECONDS = 90
"""Three heartbeats of prefect.yaml; a run that is silent for so long has no process any more."""

SECONDS = 300
"""What a command of Prefect's gets; seconds are usual."""


def deploy_flows(home: Path, pool: str = POOL, variables: PoolVariables | None = None) -> list[str]:
    """Create the work pool, the deployments of prefect.yaml and the zombie automation; return the
    deployments' names.

    Idempotent: what is there is brought up to date; schedules that were switched on, off or added
    stay so.

    Raises:
        LightLMError: no server is named or answers; or Prefect refuses prefect.yaml.
        InputError: the pool is there and of another type.
    """
    variables = variables or ProcessVariables()
    settings = read_settings(pool, variables)
    with open_server(home) as client:
        ensure_pool(client, pool, variables.pool_type)
        before = {name: read_schedules(client, name) for name in list_names(settings)}
        run_deploy(settings)
        for name, schedules in before.items():
            restore_schedules(client, name, schedules)
        ensure_zombie_automation(client)
    return list(before)


def point_at_service(home: Path) -> None:
    """Point this process at the service of this home, unless another server is named."""
    from lightlm_flows.prefect_api.embedded import names_server
    from lightlm_flows.service.lifecycle import find_environment

    if not names_server():
        os.environ.update(find_environment(home) or {})


@contextmanager
def open_server(home: Path) -> Iterator["SyncPrefectClient"]:
    """Yield a client of the server that PREFECT_API_URL names.

    Raises:
        LightLMError: none is named, it does not answer, or it refuses the password.
    """
    from lightlm_flows.prefect_api.embedded import names_server

    point_at_service(home)
    if not names_server():
        raise LightLMError(
            "no Prefect server is named; start one with `lightlm up` and point this shell at it: "
            'eval "$(lightlm up --print-env)"'
        )

    os.environ.setdefault("PREFECT_PLUGINS_ENABLED", "false")
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        with get_client(sync_client=True) as client:
            yield client
    except PrefectHTTPStatusError as error:
        raise LightLMError(
            f"Prefect's server at {os.environ.get('PREFECT_API_URL', 'its URL')} answers "
            f"{error.response.status_code}: {error.response.text[:200]}; with 401, set "
            "PREFECT_API_AUTH_STRING"
        ) from None
    except (httpx.HTTPError, RuntimeError) as error:
        where = os.environ.get("PREFECT_API_URL", "the URL of your Prefect profile")
        raise LightLMError(
            f"no Prefect server answers at {where} ({error}); start it, or `lightlm up`"
        ) from None


def ensure_pool(client: "SyncPrefectClient", pool: str, pool_type: str) -> None:
    """Create work pool, deployments and zombie automation; return the deployments' names.

    Raises:
        InputError: it is of another type.
    """
    from prefect.exceptions import ObjectNotFound

    try:
        found = client.read_work_pool(pool)
    except ObjectNotFound:
        # The command and not the client: it knows the type's template without its package
        # installed.
        run_prefect("work-pool", "create", pool, "--type", pool_type)
        return

    if found.type != pool_type:
        raise InputError(
            f"work pool {pool} is of type {found.type}, wanted {pool_type}; name another: --pool "
            f"{pool}-{pool_type}"
        )


def run_deploy(settings: Mapping[str, Any]) -> None:
    """Deploy all of `settings`.

    Raises:
        LightLMError: Prefect refuses; with its last words.
    """
    import tempfile

    # Prefect reads a file; our own may lie on a read-only disk, and names another pool.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prefect.yaml"
        path.write_text(json.dumps(settings), encoding="utf-8")  # which is YAML too
        run_prefect("deploy", "--all", "--prefect-file", str(path))


def run_prefect(*arguments: str) -> str:
    """Return the output of a Prefect command, run in our own folder without other settings.

    Raises:
        LightLMError: it fails; with its last words.
    """
    command = python_command("prefect", "--no-prompt", *arguments)
    done = subprocess.run(
        command,
        cwd=FOLDER,
        env=os.environ | SAFE_PATH | {"COLUMNS": "200", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    if done.returncode:
        said = [
            line
            for line in re.sub(r"[│╭╰─╮╯]", " ", done.stdout + done.stderr).splitlines()
            if line.strip()
        ]
        raise LightLMError(
            f"`prefect {' '.join(arguments)}` failed: {' / '.join(s.strip() for s in said[-4:])}"
        )

    return done.stdout


def read_schedules(client: "SyncPrefectClient", name: str) -> list["DeploymentSchedule"]:
    """Return a deployment's schedules; none where it is not there yet."""
    from prefect.exceptions import ObjectNotFound

    try:
        return list(client.read_deployment_by_name(name).schedules)
    except ObjectNotFound:
        return []


def restore_schedules(
    client: "SyncPrefectClient", name: str, before: list["DeploymentSchedule"]
) -> None:
    """Restore a deployment's own schedules and their states after it was deployed anew."""
    deployment = client.read_deployment_by_name(name)
    for schedule in before:
        same = [now for now in deployment.schedules if describes_same(now, schedule)]
        if not same:
            add_schedule(client, deployment, schedule)
        elif same[0].active != schedule.active:
            client.update_deployment_schedule(deployment.id, same[0].id, active=schedule.active)


def describes_same(one: "DeploymentSchedule", other: "DeploymentSchedule") -> bool:
    """Return whether two schedules are the same one: by slug, or without one by content."""
    return one.slug == other.slug and (one.slug is not None or one.schedule == other.schedule)


def add_schedule(
    client: "SyncPrefectClient", deployment: "DeploymentResponse", schedule: "DeploymentSchedule"
) -> None:
    """Create a schedule as it was, with slug and parameters."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate

    created = DeploymentScheduleCreate(
        schedule=schedule.schedule,
        active=schedule.active,
        parameters=schedule.parameters,
        slug=schedule.slug,
    )

    answer = client.request(
        "POST",
        "/deployments/{id}/schedules",
        path_params={"id": deployment.id},
        json=[created.model_dump(mode="json")],
    )

    answer.raise_for_status()


def ensure_zombie_automation(client: "SyncPrefectClient") -> None:
    """Mark runs without a heartbeat as crashed; an existing automation is replaced.

    Source: docs.prefect.io, advanced/detect-zombie-flows.
    """
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ActionTypes, ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    beat = "prefect.flow-run.heartbeat"
    ends = {
        f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")
    }
    crash: ActionTypes = ChangeFlowRunState(
        state=StateType.CRASHED,
        name=None,
        message=f"No heartbeat for {SILENCE_SECONDS} s: its process died.",
        force=False,
    )

    automation = AutomationCore(
        name=ZOMBIES,
        description=f"A flow run without a heartbeat for {SILENCE_SECONDS} s has no process: it "
        "is marked crashed.",
        enabled=True,
        trigger=EventTrigger(
            posture=Posture.Proactive,
            after={beat},
            expect={beat, *ends},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            threshold=1,
            within=timedelta(seconds=SILENCE_SECONDS),
        ),
        actions=[crash],
    )

    found = client.read_automations_by_name(ZOMBIES)
    if found:
        client.update_automation(found[0].id, automation)
    else:
        client.create_automation(automation)


def serve_flows(limit: int) -> None:
    """Serve prefect.yaml's deployments from this process, without a work pool."""
    import importlib

    from prefect import serve
    from prefect.client.schemas.objects import ConcurrencyLimitConfig
    from prefect.schedules import Cron

    served = []
    for deployment in read_settings(POOL, ProcessVariables())["deployments"]:
        module, _, function = deployment["entrypoint"].rpartition(".")
        flow = getattr(importlib.import_module(module), function)
        limits = deployment.get("concurrency_limit")
        crons = [
            Cron(
                s["cron"],
                timezone=s["timezone"],
                active=s["active"],
                parameters=s["parameters"],
                slug=s["slug"],
            )
            for s in deployment.get("schedules", ())
        ]
        served.append(
            flow.to_deployment(
                name=deployment["name"],
                description=deployment["description"],
                tags=deployment["tags"],
                parameters=deployment["parameters"],
                schedules=crons,
                concurrency_limit=ConcurrencyLimitConfig.model_validate(limits) if limits else None,
            )
        )

    serve(*served, limit=limit, pause_on_shutdown=False)
