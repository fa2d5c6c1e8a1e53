"""The command that shows what a data set holds before anything is trained: look."""

import sys
from typing import Annotated

import typer

from lightlm.params import load_params
from lightlm_flows.cli.options import (
    AsJson,
    Assignments,
    DatasetConfig,
    Offline,
    Preset,
    TextColumn,
    collect_overrides,
    print_json,
)


def look(
    dataset: Annotated[
        str | None,
        typer.Argument(
            help="A file, a folder, a pattern, a Hub id, or python-docs; default: the preset's."
        ),
    ] = None,
    dataset_config: DatasetConfig = None,
    text_column: TextColumn = None,
    preset: Preset = "base",
    offline: Offline = None,
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Show which text would be trained on and which held out.

    Lists files with encoding and column, what is left out and why, copies, and odd documents.
    """
    overrides = collect_overrides(assignments, dataset_config, text_column, offline)
    params = load_params(preset, overrides, dataset=dataset)
    from lightlm.data.look import look_at

    found = look_at(params.dataset, lambda message: typer.echo(f"lightlm: {message}", err=True))
    if as_json:
        values = found.model_dump(mode="json")
        record = values.pop("record")
        print_json(values | record)
        return

    from lightlm.console.look import render_look
    from lightlm.console.terminal import open_console

    console = open_console(sys.stdout)
    console.print(render_look(found, console))
