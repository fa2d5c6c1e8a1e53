"""The options that commands share, the overrides they stand for, and results as JSON."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lightlm.json_object import JsonObject
from lightlm.params import Overrides, list_presets, load_params, parse_assignments
from lightlm.safe_yaml import quote_text

if TYPE_CHECKING:
    from lightlm.tracking.registry import ModelVersion

MOST_COMPLETED = 50
"""Runs that the Tab key offers, the newest."""


def complete_from(*values: str) -> Callable[[str], list[str]]:
    """Return a completion of these values."""

    def complete(typed: str) -> list[str]:
        return [value for value in values if value.startswith(typed)]

    return complete


def complete_run(typed: str) -> list[str]:
    """Return the runs of this machine that begin with what was typed, the newest first."""
    from lightlm.store.home import name_home

    return sorted((path.name for path in (name_home() / "runs").glob(f"{typed}*")), reverse=True)[
        :MOST_COMPLETED
    ]


def complete_machine(typed: str) -> list[str]:
    """Return the machines of params/machines that begin with what was typed."""
    from lightlm.budget.machines import list_machines

    return [name for name in list_machines() if name.startswith(typed)]


def complete_version(typed: str) -> list[str]:
    """Return the aliases and version URIs under LIGHTLM_HOME that begin with the typed text."""
    from lightlm.store.home import name_home
    from lightlm.tracking.local_registry import LocalRegistry

    found = LocalRegistry.load(name_home() / "mlflow.db")
    known = [] if found is None else found.search_model_versions()
    uris = [f"models:/{one.name}/{one.version}" for one in known]
    uris += [f"models:/{one.name}@{alias}" for one in known for alias in one.aliases]
    return [
        word for word in ("champion", "challenger", "previous", *uris) if word.startswith(typed)
    ]


ProbeFile = Annotated[
    Path | None,
    typer.Option(
        help="File of an earlier `plan --json` with measurements to use; default: measure."
    ),
]

Quick = Annotated[
    bool,
    typer.Option(
        "--quick",
        help="Plan within 15 s: less text is read, and fewer shapes are timed; default: no.",
    ),
]

Machines = Annotated[
    list[str] | None,
    typer.Option(
        autocompletion=complete_machine,
        metavar="NAME",
        help="Plan for a machine of params/machines, such as h100 or rtx-4090, instead of this "
        "one; with --compare: those to compare, repeatable; default: this one, or all.",
    ),
]

Compare = Annotated[
    bool,
    typer.Option(
        "--compare",
        help="Show what 5 minutes, 1 hour and 8 hours on each machine would reach; default: no.",
    ),
]

Picture = Annotated[
    Path | None,
    typer.Option(help="SVG file for the picture of --compare; default: none."),
]

Hours = Annotated[
    str | None,
    typer.Option(
        "--hours",
        "-H",
        metavar="TIME",
        help="Wall clock of the whole run: hours as 0.5, or 30m, 1h30, 90s; default: the preset's "
        "(base: 72s, retrain: 1h).",
    ),
]
Dataset = Annotated[
    list[str] | None,
    typer.Option(
        "--dataset",
        "-d",
        metavar="TEXT",
        help="A Hub id, a file or folder of text, the URL of a corpus that `tokenize` made, or "
        "python-docs; default: the preset's "
        "(base: Salesforce/wikitext), and for retrain the champion's. Repeated, further texts to "
        "mix in, as TEXT:0.3 (share of the tokens), TEXT:once or TEXT:auto; default: auto.",
    ),
]
DatasetConfig = Annotated[
    str | None, typer.Option(help="The Hub data set's configuration; default: the preset's.")
]
TextColumn = Annotated[
    str | None,
    typer.Option(help="The column that holds the text; default: the one with most text."),
]
Offline = Annotated[
    str | None,
    typer.Option(
        autocompletion=complete_from("fallback", "no-fallback"),
        help="If the Hub is out of reach: fallback (python-docs) or no-fallback (an error); "
        "default: fallback for WikiText alone, and never for retrain.",
    ),
]


Notify = Annotated[
    str | None,
    typer.Option(
        "--notify",
        metavar="COMMAND",
        help="Command to start at the end, with one sentence as its last argument; default: none.",
    ),
]
Start = Annotated[
    str | None,
    typer.Option(
        "--start",
        metavar="SOURCE",
        help="What training begins with: scratch, auto, a registered version, a Hub id, a Hugging "
        "Face folder or a GGUF file (`lightlm bases` lists some); default: scratch.",
    ),
]
SamplePrompt = Annotated[
    str | None,
    typer.Option(
        "--sample-prompt",
        metavar="TEXT",
        help="Text that the samples during training continue; default: The.",
    ),
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
        "--preset",
        "-p",
        autocompletion=complete_preset,
        help="NAME of params/NAME.yaml, or a YAML file of yours; laid over params/base.yaml.",
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="SECTION.KEY=VALUE",
        autocompletion=complete_assignment,
        help="One value of the params; may be repeated; default: none.",
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print exactly one JSON object on standard output.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Fresh = Annotated[
    bool,
    typer.Option(
        "--fresh",
        help="Start a new run even if an unfinished run of the same options could resume.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        autocompletion=complete_version,
        help="models:/NAME@ALIAS, models:/NAME/VERSION, or within --name an alias or a version; "
        "default: the champion.",
    ),
]
Name = Annotated[
    str | None,
    typer.Option(
        "--name", help="The registered model's name; default: the newest model trained here."
    ),
]
NewName = Annotated[
    str | None,
    typer.Option("--name", help="The registered model's name; default: after the data set."),
]


def collect_overrides(
    assignments: list[str] | None,
    dataset_config: str | None,
    text_column: str | None,
    offline: str | None,
    name: str | None = None,
    start: str | None = None,
) -> Overrides:
    """Return dotted overrides of the options that stand for params."""
    named = {
        "start.source": start,
        "dataset.config": dataset_config,
        "dataset.text_column": text_column,
        "dataset.offline": offline,
        "tracking.model_name": name,
    }
    given: Overrides = {
        name: quote_text(value) for name, value in named.items() if value is not None
    }
    return given | parse_assignments(assignments or [])


def open_chosen(
    home: Path, model: str | None, name: str | None, *, is_quiet: bool = False
) -> "ModelVersion":
    """Return the chosen version, its files here; print which it is if it was not named.

    Raises:
        ModelVersionError: there is none such.
    """
    from lightlm.runs.naming import format_version
    from lightlm.tracking.catalog import parse_model
    from lightlm.versions.text import open_version

    version = open_version(home, model, name)
    is_named = name is not None or (model is not None and parse_model(model)[0] is not None)
    if not (is_named or is_quiet):
        typer.echo(format_version(version), err=True)
    return version


def log(message: str) -> None:
    """Print a line for a person: standard output belongs to results."""
    typer.echo(message, err=True)


def print_json(value: JsonObject) -> None:
    """Print one JSON object on standard output."""
    sys.stdout.write(json.dumps(value) + "\n")
