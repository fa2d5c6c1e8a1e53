"""The command that follows a run of another process: watch."""

from typing import Annotated

import typer

from lightlm.errors import LightLMError
from lightlm.store.home import find_home
from lightlm_flows.cli.options import Quiet, complete_run


def watch(
    run: Annotated[
        str | None,
        typer.Argument(
            autocompletion=complete_run,
            help="A run's folder, its name or the beginning of it; default: the newest.",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Follow a run of another process until it ends.

    The exit code is 0 if the run finished, else 1. Ctrl-C ends the watching, not the run.
    """
    from lightlm.runs.watching import watch_run

    try:
        status = watch_run(find_home(only_to_read=True), run, is_quiet=quiet)
    except KeyboardInterrupt:
        typer.echo("stopped watching; the run continues", err=True)
        return
    if status != "FINISHED":
        raise typer.Exit(LightLMError.exit_code)
