"""The schedules of a deployment: the one that `lightlm schedule` sets, and all of them in words."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightlm.errors import InputError, LightLMError
from lightlm_flows.service.deployments import add_schedule, open_server, point_at_service

if TYPE_CHECKING:
    from prefect.client.schemas.objects import DeploymentSchedule

OWN_SCHEDULE = "lightlm"
"""The slug of the schedule that `lightlm schedule` sets."""


def schedule_flow(
    home: Path, flow: str, cron: str | None, timezone: str, parameters: Mapping[str, Any]
) -> list[str]:
    """Set or, without `cron`, remove our schedule of a deployment; return all its schedules.

    Raises:
        InputError: the deployment is not there, or `cron` is no schedule.
    """
    point_at_service(home)
    from prefect.client.schemas.objects import DeploymentSchedule
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.exceptions import ObjectNotFound
    from pydantic import ValidationError

    name = f"{flow}/{flow}"
    try:
        wanted = None if cron is None else CronSchedule(cron=cron, timezone=timezone)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(
            f"{message}; give five fields as --cron '0 3 * * *' and a --timezone as Europe/Berlin"
        ) from None

    with open_server(home) as client:
        try:
            deployment = client.read_deployment_by_name(name)
        except ObjectNotFound:
            raise InputError(
                f"no deployment {name} on this server; run `lightlm deploy` first"
            ) from None
        for schedule in deployment.schedules:
            if schedule.slug == OWN_SCHEDULE:
                client.delete_deployment_schedule(deployment.id, schedule.id)
        if wanted is not None:
            given = DeploymentSchedule(
                schedule=wanted,
                active=True,
                parameters=dict(parameters),
                slug=OWN_SCHEDULE,
                deployment_id=deployment.id,
            )
            add_schedule(client, deployment, given)

    return list_schedules(home, flow)


def list_schedules(home: Path, flow: str) -> list[str]:
    """Return a flow's schedules in words; none where it is not deployed."""
    point_at_service(home)
    from prefect.exceptions import ObjectNotFound

    with open_server(home) as client:
        try:
            deployment = client.read_deployment_by_name(f"{flow}/{flow}")
        except ObjectNotFound:
            return []

    return [
        describe_schedule(home, flow, schedule, deployment.parameters)
        for schedule in deployment.schedules
    ]


def describe_schedule(
    home: Path, flow: str, schedule: "DeploymentSchedule", defaults: Mapping[str, Any]
) -> str:
    """Return "retrain-flow 0 3 * * * UTC, on: model notes, data set /home/me/notes, 1 h
    (lightlm)".
    """
    when = getattr(schedule.schedule, "cron", None) or str(schedule.schedule)
    when = f"{when} {getattr(schedule.schedule, 'timezone', None) or ''}".strip()
    values = dict(defaults) | schedule.parameters

    parts = [describe_text(home, flow, values)]
    if (hours := values.pop("hours", None)) is not None:
        parts.append(f"{float(hours):g} h")

    others = {key: value for key, value in values.items() if key not in ("name", "dataset")}
    parts += [f"{key}={value}" for key, value in others.items()]

    slug = f" ({schedule.slug})" if schedule.slug else ""
    return f"{flow} {when}, {'on' if schedule.active else 'off'}: {', '.join(parts)}{slug}"


def describe_text(home: Path, flow: str, values: Mapping[str, Any]) -> str:
    """Return which model a deployment's run with these parameters makes, and of which data set."""
    name = values.get("name")
    dataset = values.get("dataset")
    if dataset is None and flow == "train-flow":
        from lightlm.data.origin import describe_origin, format_origin
        from lightlm.params import load_params

        params = load_params(values.get("preset", "base"), values.get("overrides") or {})
        dataset = format_origin(describe_origin(params.dataset))
    elif dataset is None:
        dataset = "its champion's"
        with suppress(LightLMError):
            from lightlm.data.origin import format_origin
            from lightlm.runs.retraining import find_learned_text, find_model

            found, version = find_model(home, name)
            if version is not None:
                dataset = format_origin(find_learned_text(home, version))
                name = name or f"{found} (the newest)"
        name = name or "the newest"

    return f"model {name or 'named after the data set'}, data set {dataset}"
