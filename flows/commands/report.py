"""The command that tells a finished run on a page: report."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[str | None, typer.Argument(help="A run's name or folder; without one, the latest.")] = None,
    into: Annotated[Path | None, typer.Option("--into", help="Where to write; without it, the run's folder.")] = None,
) -> None:
    """Write a finished run's report: report.html (one file, no network needed) and two pictures."""
    from flows.report import find_run, make_report

    typer.echo(make_report(find_run(run), into))
