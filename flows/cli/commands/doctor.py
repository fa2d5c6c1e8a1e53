"""The command that finds out what keeps LightLM from working: doctor."""

import sys

import typer

from lightlm.errors import LightLMError
from lightlm_flows.cli.options import AsJson, print_json

NAME_COLUMNS = 12
"""Columns of the longest name of a check."""


def doctor(as_json: AsJson = False) -> None:
    """Find out what keeps LightLM from working, and how to fix it.

    Checks the installation, this machine, the store, MLflow, Prefect, the Hub and the clock.

    The exit code is 0 without a failure, else 1.
    """
    from lightlm.console.tables import render_checks
    from lightlm.console.terminal import open_console
    from lightlm_flows.cli.doctor import examine

    console = open_console(sys.stdout)
    checks = []
    for check in examine():
        checks.append(check)
        if not as_json:
            console.print(render_checks([check], console, NAME_COLUMNS))

    failed = [check.name for check in checks if check.status == "fail"]
    if as_json:
        print_json({"checks": [check.model_dump() for check in checks], "num_failed": len(failed)})
    elif failed:
        typer.echo(
            f"\nfailed: {', '.join(dict.fromkeys(failed))}; each line says how to fix it",
            err=True,
        )

    if failed:
        raise typer.Exit(LightLMError.exit_code)
