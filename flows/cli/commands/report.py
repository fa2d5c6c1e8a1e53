"""The command that writes a finished run's page: report."""

from pathlib import Path
from typing import Annotated

import typer

from lightlm.store.home import find_home
from lightlm_flows.cli.options import complete_run, log


def report(
    run: Annotated[
        str | None,
        typer.Argument(
            autocompletion=complete_run, help="A run's name or folder; default: the latest."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Only runs of this registered model; default: of any."),
    ] = None,
    send: Annotated[
        bool, typer.Option(help="Add the page to the run's artifacts in MLflow, too.")
    ] = True,
    into: Annotated[
        Path | None, typer.Option("--into", help="Folder to write into; default: the run's.")
    ] = None,
    is_opened: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Write a finished run's report, a page that needs no network.

    Writes report.html and two pictures into the run's folder and to MLflow.
    """
    from lightlm.runs.finished import describe_run, find_finished_run
    from lightlm.runs.report import make_report, send_report

    home = find_home()
    folder = find_finished_run(home, run, name)
    if run is None:
        log(describe_run(folder))

    page = make_report(home, folder, into)
    typer.echo(page)
    if is_opened:
        from lightlm_flows.service.browser import open_page

        open_page(page.absolute().as_uri(), log)

    if send:
        log(send_report(home, folder, page))
