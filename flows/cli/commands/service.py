"""The commands of the service: up, down, status, deploy, serve-flows, schedule, server."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lightlm.store.home import find_home
from lightlm_flows.cli.options import AsJson, log, print_json


def up(
    prefect_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Prefect's port on this machine.")
    ] = 4200,
    mlflow_port: Annotated[
        int, typer.Option(min=1, max=65535, help="MLflow's port on this machine.")
    ] = 5000,
    print_env: Annotated[
        bool,
        typer.Option(
            "--print-env", help="Print the shell exports for the running service; start nothing."
        ),
    ] = False,
    is_opened: Annotated[
        bool, typer.Option("--open", help="Open both servers' pages in a browser.")
    ] = False,
    foreground: Annotated[
        bool,
        typer.Option(
            "--foreground",
            help="Stay, for systemd and containers; the service ends with this process.",
        ),
    ] = False,
    systemd: Annotated[
        bool,
        typer.Option(
            "--systemd",
            help="Write a unit that starts it with the machine (macOS: launchd); start nothing.",
        ),
    ] = False,
) -> None:
    """Start Prefect, MLflow and a worker on this machine.

    Deploys the flows. The servers listen on loopback and need passwords.
    """
    from lightlm_flows.service.browser import open_page, print_logins
    from lightlm_flows.service.keeper import keep_in_foreground
    from lightlm_flows.service.lifecycle import start_service
    from lightlm_flows.service.record import SERVERS

    home = find_home()
    if print_env:
        print_environment(home)
        return

    if systemd:
        install_unit(home, prefect_port, mlflow_port)
        return

    service = start_service(home, prefect_port, mlflow_port, log, is_keeper=foreground)
    typer.echo(f"Prefect {service.prefect_url}")
    typer.echo(f"MLflow  {service.mlflow_url}")
    print_logins(home, log, *SERVERS)
    if foreground:
        keep_in_foreground(home, log)
        return

    if is_opened:
        for url in (service.prefect_url, service.mlflow_url):
            open_page(url, log)

    log("To point this shell at the service:")
    log('  eval "$(lightlm up --print-env)"')
    log("  prefect deployment run train-flow --param hours=0.1")
    log("`lightlm down` stops all of it.")


def install_unit(home: Path, prefect_port: int, mlflow_port: int) -> None:
    """Write the unit that starts the service with the machine; print how to enable it."""
    from lightlm_flows.service.units import describe_unit, write_unit

    unit = describe_unit(home, prefect_port, mlflow_port, os.environ)
    write_unit(unit)
    typer.echo(unit.path)
    log("To put it into use (`lightlm down` first, if the service runs):")
    for command in unit.enable:
        log(f"  {command}")

    log("And out of it:")
    for command in unit.disable:
        log(f"  {command}")


def status(as_json: AsJson = False) -> None:
    """Show the service: its parts, its runs, the next schedule."""
    from datetime import UTC, datetime

    from lightlm_flows.service.status import describe_status, read_status

    found = read_status(find_home(only_to_read=True))
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    for line in describe_status(found, datetime.now(UTC)):
        typer.echo(line)


def print_environment(home: Path) -> None:
    """Print shell exports that point a client at the running service.

    Raises:
        InputError: nothing runs.
    """
    from lightlm.errors import InputError
    from lightlm_flows.service.lifecycle import find_environment
    from lightlm_flows.service.record import SERVERS, read_service

    values = find_environment(home)
    if values is None:
        service = read_service(home)
        died = [name for name in SERVERS if service is not None and not service.runs(name)]
        if died:
            raise InputError(
                f"{' and '.join(died)} of the service died; it comes back by itself, see "
                "`lightlm status`"
            )
        raise InputError(
            "the service does not run here; start it with `lightlm up`, or see `lightlm env`"
        )
    print_exports(values)


def print_exports(values: Mapping[str, str]) -> None:
    """Print variables as a shell reads them."""
    for name, value in values.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def env() -> None:
    """Print shell exports that select these models, or the service.

    After `eval "$(lightlm env)"`, MLflow's own commands and Python find them.
    """
    from lightlm.tracking.registry import tracking_uri
    from lightlm_flows.service.lifecycle import find_environment

    home = find_home()
    own = {
        "MLFLOW_TRACKING_URI": tracking_uri(home),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    print_exports(find_environment(home) or own)


def down() -> None:
    """Stop what `lightlm up` started, and nothing else."""
    from lightlm_flows.service.lifecycle import stop_service

    log("Stopped." if stop_service(find_home(), log) else "Nothing runs that `lightlm up` started.")


def deploy(
    pool: Annotated[
        str, typer.Option(help="The work pool; created if it does not exist.")
    ] = "lightlm",
    pool_type: Annotated[
        Literal["process", "docker", "kubernetes"],
        typer.Option(help="How a run is started: as a process, a container or a job."),
    ] = "process",
    job_variables: Annotated[
        list[str] | None,
        typer.Option(
            "--job-variable",
            metavar="NAME=VALUE",
            help="One variable, as image=lightlm:cpu; may be repeated; default: none.",
        ),
    ] = None,
) -> None:
    """Deploy the flows on a Prefect server.

    Makes the work pool, the deployments of prefect.yaml, and the automation that ends zombies.
    """
    from lightlm_flows.service.deployments import deploy_flows

    for name in deploy_flows(find_home(), pool, read_variables(pool_type, job_variables or [])):
        typer.echo(name)
    log(f"Deployed on work pool {pool}; start a worker with `prefect worker start --pool {pool}`.")


def read_variables(pool_type: str, given: list[str]) -> Any:
    """Return a pool's job variables of NAME=VALUE; values are YAML.

    Raises:
        InputError: a name that the pool does not have, or a value of another type.
    """
    import yaml
    from pydantic import ValidationError

    from lightlm.errors import InputError
    from lightlm.params import describe_validation
    from lightlm_flows.service.work_pools import POOL_TYPES

    values = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals:
            raise InputError(f"--job-variable {word} is no NAME=VALUE")
        values[name] = yaml.safe_load(value)

    try:
        return POOL_TYPES[pool_type].model_validate(values)
    except ValidationError as error:
        raise InputError(
            f"job variables of a {pool_type} pool: {describe_validation(error)}"
        ) from None


def serve_flows(
    limit: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
) -> None:
    """Serve the flows from this process until Ctrl-C.

    Needs a Prefect server, but no work pool.
    """
    from lightlm_flows.service.deployments import open_server

    with open_server(find_home()) as client:
        log(
            f"Serving train-flow, generate-flow and retrain-flow to {client.api_url} (Ctrl-C ends "
            "it)"
        )
    from lightlm_flows.service.deployments import serve_flows as serve

    serve(limit)


def schedule(
    flow: Annotated[
        Literal["retrain-flow", "train-flow"],
        typer.Argument(help="The flow to run: retrain-flow or train-flow."),
    ] = "retrain-flow",
    cron: Annotated[
        str | None,
        typer.Option(
            help="Minute, hour, day, month, weekday, as '0 3 * * *'; default: list the schedules."
        ),
    ] = None,
    timezone: Annotated[
        str, typer.Option(help="Time zone of the cron expression, for example Europe/Berlin.")
    ] = "UTC",
    hours: Annotated[
        str | None,
        typer.Option(
            "--hours",
            "-H",
            metavar="TIME",
            help="Wall clock of each run, as 0.5, 30m or 1h30; default: the deployment's.",
        ),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset",
            "-d",
            metavar="TEXT",
            help="The data set; default: the champion's, or for train-flow WikiText. Repeated, "
            "further texts, as for `train`.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", help="The registered model's name; default: the newest model trained here."
        ),
    ] = None,
    off: Annotated[
        bool, typer.Option("--off", help="Remove the schedule that --cron set.")
    ] = False,
) -> None:
    """Run a flow on a schedule, on the service.

    Without --cron or --off, lists its schedules.
    """
    from lightlm.errors import InputError
    from lightlm.params import load_params, name_texts
    from lightlm_flows.service.schedules import list_schedules, schedule_flow

    if cron and off:
        raise InputError("give --cron or --off, not both")

    home = find_home()
    if cron or off:
        first, others = name_texts(dataset)
        if cron and flow == "retrain-flow" and first is None:
            name = find_retrained_name(home, name)
        wanted = None if hours is None else load_params(hours=hours).budget.hours
        given = {"hours": wanted, "dataset": first, "name": name, "overrides": others or None}
        values = {key: value for key, value in given.items() if value is not None}
        lines = schedule_flow(home, flow, cron, timezone, values)
    else:
        lines = list_schedules(home, flow)

    for line in lines:
        typer.echo(line)
    if not lines:
        log(f"{flow} has no schedule.")


def find_retrained_name(home: Path, name: str | None) -> str:
    """Return the named or newest model, which is retrained on its champion's data set.

    Raises:
        InputError: there is none, or it does not say what it learned.
    """
    from lightlm.errors import InputError
    from lightlm.runs.retraining import find_learned_text, find_model

    chosen, version = find_model(home, name)
    if version is None:
        missing = f"there is no model {name} yet" if name else "no model is registered yet"
        raise InputError(
            f"{missing}; train one first, as with `lightlm train --dataset notes/`, or give "
            "--dataset here"
        )

    find_learned_text(home, version)
    return chosen


def server(
    name: Annotated[
        Literal["prefect", "mlflow"], typer.Argument(help="The server to run: prefect or mlflow.")
    ],
    host: Annotated[
        str, typer.Option(help="Any address but loopback requires passwords and --allowed-hosts.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Default: 4200 for Prefect, 5000 for MLflow."),
    ] = None,
    allowed_hosts: Annotated[
        str,
        typer.Option(
            help="HOST:PORT,HOST:PORT of this server; browsers use the first; default: none."
        ),
    ] = "",
) -> None:
    """Run one server in the foreground, for containers.

    Uses the settings of the service.
    """
    from lightlm_flows.service.browser import print_logins
    from lightlm_flows.service.lifecycle import bare_environment
    from lightlm_flows.service.private_files import make_private_folder
    from lightlm_flows.service.servers import is_loopback, name_service_folder, start_of

    home = find_home()
    names = [word.strip() for word in allowed_hosts.split(",") if word.strip()]
    number = port or {"prefect": 4200, "mlflow": 5000}[name]
    make_private_folder(name_service_folder(home))
    start = start_of(name, home, host, number, names, os.environ)
    if is_loopback(host):
        print_logins(home, log, name)

    # Compose passes unset variables as empty ones; an empty endpoint is one that
    # no client reaches.
    given = {key: value for key, value in os.environ.items() if value}
    settings = ("PREFECT_SERVER_", "PREFECT_HOME", "MLFLOW_S3_")
    kept = {
        key: value
        for key, value in given.items()
        if key in bare_environment() or key.startswith(settings)
    }

    if name == "prefect":
        # Prefect would take settings, and its database's updates modules, from the folder a person
        # stands in.
        os.chdir(name_service_folder(home))

    os.execvpe(start.command[0], start.command, kept | start.environment)  # noqa: S606
