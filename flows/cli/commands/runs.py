"""The command `runs`: this machine's runs, listed, or one of them removed."""

import sys
from typing import Annotated

import typer

from lightlm.store.home import find_home
from lightlm_flows.cli.options import AsJson, complete_run, print_json

runs = typer.Typer(
    help="List the runs of this machine, or remove one.", invoke_without_command=True
)


@runs.callback()
def show(
    context: typer.Context,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, help="How many of the newest runs.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """List the runs of this machine, the newest first.

    Shows state, score against the plan, size and loss, without asking MLflow.
    """
    if context.invoked_subcommand is not None:
        return

    from lightlm.tracking.runs import list_runs

    found = list_runs(find_home(only_to_read=True), limit)
    if as_json:
        print_json({"runs": [run.model_dump(mode="json") for run in found]})
        return

    if not found:
        typer.echo("no run yet; run `lightlm train` first", err=True)
        return

    from lightlm.console.runs import render_runs
    from lightlm.console.terminal import open_console

    console = open_console(sys.stdout)
    console.print(render_runs(found, console))
    if any(run.state in ("stopped", "died") for run in found):
        typer.echo(
            "stopped or died: the same command resumes it; `lightlm watch RUN` follows a running "
            "one"
        )


@runs.command()
def rm(
    names: Annotated[
        list[str], typer.Argument(metavar="RUN", autocompletion=complete_run, help="Runs, by name.")
    ],
    is_forced: Annotated[
        bool, typer.Option("--force", help="Remove even runs that MLflow does not have yet.")
    ] = False,
) -> None:
    """Remove folders of runs: records, checkpoints, their own copies of the model.

    Registered versions and MLflow's records stay.
    """
    from lightlm.runs.removal import remove_run

    home = find_home()
    for name in names:
        typer.echo(remove_run(home, name, is_forced=is_forced))
