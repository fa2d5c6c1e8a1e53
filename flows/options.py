"""What the commands share: their options, the overrides that options stand for, and results as JSON."""

import json
import sys
from typing import Annotated, Any

import typer

from lightlm.params import Params, list_presets, load_params, parse_assignments

Hours = Annotated[
    str | None,
    typer.Option("--hours", "-H", metavar="TIME", help="Wall clock of the whole run: hours as 0.5, or 30m, 1h30, 90s."),
]
Dataset = Annotated[
    str | None, typer.Option("--dataset", "-d", help="A Hub id, a file or folder of text, or python-docs.")
]
DatasetConfig = Annotated[str | None, typer.Option(help="The Hub data set's configuration.")]
TextColumn = Annotated[str | None, typer.Option(help="The column that holds the text.")]
Offline = Annotated[
    str | None, typer.Option(help="If the Hub is out of reach: fallback (python-docs) or no-fallback (an error).")
]


def complete_preset(typed: str) -> list[str]:
    """Return the presets that begin with what was typed."""
    return [name for name in list_presets() if name.startswith(typed)]


def complete_assignment(typed: str) -> list[str]:
    """Return the params whose names begin with what was typed, ready for their value."""
    return [f"{name}=" for name in load_params().flatten() if name.startswith(typed)]


Preset = Annotated[
    str,
    typer.Option(
        "--preset", "-p", autocompletion=complete_preset, help="params/NAME.yaml, laid over params/base.yaml."
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="SECTION.KEY=VALUE",
        autocompletion=complete_assignment,
        help="One value; may be repeated.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Begin anew, although an unfinished run of the same options could go on.")
]
Model = Annotated[
    str, typer.Option("--model", "-m", help="models:/NAME@ALIAS, models:/NAME/VERSION, an alias or a version.")
]
CHAMPION = "models:/lightlm@champion"


def collect_overrides(
    assignments: list[str] | None, dataset_config: str | None, text_column: str | None, offline: str | None
) -> dict[str, Any]:
    """Return dotted overrides of the options that stand for params."""
    named = {"dataset.config": dataset_config, "dataset.text_column": text_column, "dataset.offline": offline}
    given: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    return given | parse_assignments(assignments or [])


def check_sources(params: Params) -> None:
    """Refuse, before anything slow starts, hours, a data set, a tokenizer and a shape that cannot be.

    Raises:
        InputError: hours that nothing can keep; a path that does not exist, or is empty; heads that divide no width;
            too long a context.
    """
    from lightlm.budget.shapes import check_shape
    from lightlm.data.subset import check_dataset
    from lightlm.data.tokenizer import check_tokenizer_source

    check_hours(params)
    check_shape(params)
    check_dataset(params.dataset, params.model.context_length)
    check_tokenizer_source(params.tokenizer)


def check_hours(params: Params) -> None:
    """Refuse a budget that this machine cannot keep; one of steps is as long as it gets.

    Raises:
        ParameterError: naming the smallest hours that work here.
    """
    from lightlm.budget.reserve import FixedTimes
    from lightlm.store.home import find_home

    if params.budget.max_steps is None:
        FixedTimes(find_home()).check(params.budget.hours)


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on standard output."""
    sys.stdout.write(json.dumps(value) + "\n")
