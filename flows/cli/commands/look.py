"""The command that shows what a data set holds before anything is trained: look."""

import sys
from typing import Annotated

import typer

from lightlm.json_object import JsonObject
from lightlm.params import Weight, load_params, name_texts
from lightlm_flows.cli.launching import log_aside
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
        list[str] | None,
        typer.Argument(
            metavar="[TEXT]...",
            help="A file, a folder, a pattern, a Hub id, or python-docs; default: the preset's. "
            "Further texts with weights, as for `train --dataset`.",
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
    first, others = name_texts(dataset)
    overrides = others | collect_overrides(assignments, dataset_config, text_column, offline)
    params = load_params(preset, overrides, dataset=first)
    from lightlm.data.look import Look, look_at

    def flatten(one: Look) -> JsonObject:
        values = one.model_dump(mode="json")
        values["quality"]["findings"] = one.quality.describe()
        return values | values.pop("record")

    weights: list[Weight] = [one.weight for one in params.dataset.others]
    found, *mixed = [
        look_at(one, log_aside) for one in (params.dataset, *params.dataset.list_others())
    ]
    if as_json:
        rows = [
            flatten(one) | {"weight": weight} for one, weight in zip(mixed, weights, strict=True)
        ]
        print_json(flatten(found) | ({"others": rows} if rows else {}))
        return

    from lightlm.console.look import render_look
    from lightlm.console.terminal import open_console

    console = open_console(sys.stdout)
    console.print(render_look(found))
    for one, weight in zip(mixed, weights, strict=True):
        console.print(render_look(one, weight))
