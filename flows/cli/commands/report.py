"""The command that tells a finished run on a page: report."""

from pathlib import Path
from typing import Annotated

import typer

from lightlm_flows.cli.options import complete_run


def report(
    run: Annotated[
        str | None,
        typer.Argument(
            autocompletion=complete_run, help="A run's name or folder; without one, the latest."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The latest run of this registered model.")
    ] = None,
    send: Annotated[
        bool, typer.Option(help="Put it beside the run's artifacts in MLflow, too.")
    ] = True,
    into: Annotated[
        Path | None, typer.Option("--into", help="Where to write; without it, the run's folder.")
    ] = None,
    is_opened: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Write a finished run's report, one page without network.

    report.html and two pictures in the run's folder; in MLflow, too.
    """
    from lightlm.runs.report import describe_run, find_run, make_report, send_report

    folder = find_run(run, name)
    if run is None:
        typer.echo(describe_run(folder), err=True)

    page = make_report(folder, into)
    typer.echo(page)
    if is_opened:
        from lightlm_flows.service.browser import open_page

        open_page(page.absolute().as_uri(), lambda message: typer.echo(message, err=True))

    if send:
        typer.echo(send_report(folder, page), err=True)
