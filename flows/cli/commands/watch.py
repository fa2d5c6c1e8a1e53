"""The command that follows a run started elsewhere: watch."""

from typing import Annotated

import typer

from lightlm.errors import LightLMError
from lightlm_flows.cli.options import Quiet, complete_run


def watch(
    run: Annotated[
        str | None,
        typer.Argument(
            autocompletion=complete_run,
            help="A run's folder, its name or the beginning of it; without one, the newest.",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Follow a run that another process makes until it ends.

    A deployment's, or another terminal's; without a name, the newest.

    The exit code is 0 where it finished, else 1. Ctrl-C ends the watching, not the run.
    """
    from lightlm.runs.watching import watch_run

    try:
        status = watch_run(run, is_quiet=quiet)
    except KeyboardInterrupt:
        typer.echo("no longer watching; the run goes on", err=True)
        return
    if status != "FINISHED":
        raise typer.Exit(LightLMError.exit_code)
