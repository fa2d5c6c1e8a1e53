"""The command that lists the runs: runs."""

import sys
from typing import Annotated

import typer

from lightlm_flows.options import AsJson, print_json


def runs(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the newest.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the runs of this machine, the newest first.

    State, score against the plan, size, loss; MLflow is not asked.
    """
    from lightlm.store.home import find_home
    from lightlm.tracking.runs import list_runs

    found = list_runs(find_home(), limit)
    if as_json:
        print_json({"runs": [run.model_dump(mode="json") for run in found]})
        return
    if not found:
        typer.echo("no run yet; run `lightlm train` first", err=True)
        return
    from lightlm.console.runs import draw_runs
    from lightlm.console.terminal import open_console

    console = open_console(sys.stdout)
    console.print(draw_runs(found, console))
    if any(run.state in ("stopped", "died") for run in found):
        typer.echo("stopped or died: the same command goes on with it; `lightlm watch RUN` follows a running one")
