"""The commands backup and restore: LIGHTLM_HOME into one file, and a new home of it."""

from pathlib import Path
from typing import Annotated

import typer

from lightlm.store.home import find_home, name_home


def backup(
    file: Annotated[
        Path, typer.Argument(help="The file to write; it contains the service's passwords, too.")
    ],
) -> None:
    """Copy LIGHTLM_HOME into one file.

    Runs may continue meanwhile.
    """
    from lightlm.quantities import format_bytes
    from lightlm.store.backup import write_backup
    from lightlm.tracking.registry import is_local

    home = name_home()
    done = write_backup(home, file)
    typer.echo(f"{file}: {done.num_files:,} files, {format_bytes(done.num_bytes)} of {home}")

    if not is_local(home):
        typer.echo(
            "MLflow's data is on its server, not in this home: back that up too "
            "(docs/operations.md).",
            err=True,
        )


def restore(
    file: Annotated[Path, typer.Argument(help="The file that `lightlm backup` wrote.")],
) -> None:
    """Restore a backup into LIGHTLM_HOME, which has to be empty.

    Checks each file against its digest.
    """
    from lightlm.quantities import format_bytes
    from lightlm.store.backup import restore_backup
    from lightlm.tracking.relocation import relocate_artifacts

    home = find_home()
    done = restore_backup(
        file, home, lambda files, old, new: relocate_artifacts(files / "mlflow.db", old, new)
    )
    typer.echo(
        f"{home}: {done.num_files:,} files, {format_bytes(done.num_bytes)}, as {done.home} was"
    )
    typer.echo("`lightlm sync` sends MLflow what it has missed.", err=True)
