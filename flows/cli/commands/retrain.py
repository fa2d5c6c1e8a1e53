"""The commands of the champion: retrain, promote, rollback."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lightlm.budget.ledger import find_process_start
from lightlm.console.next_commands import name_command
from lightlm.params import load_params, name_texts
from lightlm.runs.input_checks import check_sources
from lightlm.store.home import find_home
from lightlm_flows.cli.launching import keep_result, run_flows, start_prefect
from lightlm_flows.cli.options import (
    AsJson,
    Assignments,
    Dataset,
    DatasetConfig,
    Fresh,
    Hours,
    Name,
    Offline,
    Preset,
    Quiet,
    TextColumn,
    collect_overrides,
    complete_version,
    print_json,
)

if TYPE_CHECKING:
    from lightlm.runs.summary import RetrainSummary


def retrain(
    hours: Hours = None,
    dataset: Dataset = None,
    name: Name = None,
    dataset_config: DatasetConfig = None,
    text_column: TextColumn = None,
    preset: Preset = "retrain",
    offline: Offline = None,
    assignments: Assignments = None,
    force: Annotated[
        bool, typer.Option("--force", help="Train even if the data set is unchanged.")
    ] = False,
    start: Annotated[
        Literal["forecast", "scratch", "champion"],
        typer.Option(
            help="Start from scratch, from the champion's weights, or as forecast to score better."
        ),
    ] = "forecast",
    fresh: Fresh = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train a challenger if the champion's data set has changed.

    It becomes champion if it is shown to be better.
    """
    started_at = find_process_start()
    first, others = name_texts(dataset)
    overrides = others | collect_overrides(assignments, dataset_config, text_column, offline, name)
    home = find_home()
    params = load_params(preset, overrides, dataset=first, hours=hours)
    if first is not None or "dataset.source" in overrides:
        check_sources(home, params)
    from lightlm.runs.launch import Launch
    from lightlm_flows.cli.signals import end_in_order

    api = start_prefect(home)
    from lightlm.runs.finished import add_late_version
    from lightlm.runs.retraining import choose_text
    from lightlm_flows.retrain import retrain_flow  # while the API starts

    relearning = choose_text(home, preset, overrides, dataset=first, hours=hours)
    relearning.check(home)
    if not quiet:
        typer.echo(relearning.describe(), err=True)

    launch = Launch(started_at, is_quiet=quiet, is_fresh=fresh)
    with end_in_order(launch), run_flows(home, api, launch):
        summary = keep_result(
            lambda: retrain_flow(
                hours=relearning.params.budget.hours,
                preset=preset,
                overrides=relearning.overrides,
                force=force,
                start=start,
            ),
            launch,
            lambda: launch.retraining,
        )

    if summary.run is not None:
        known = add_late_version(summary.run, Path(summary.run.folder).parent)
        closed = known.closed(time.monotonic() - started_at)
        summary = summary.model_copy(update={"run": closed})

    if as_json:
        print_json(summary.model_dump(mode="json"))
    elif not quiet:
        show_retraining(summary)


def show_retraining(summary: "RetrainSummary") -> None:
    """Print what a retraining did: why nothing was done, or the run's report."""
    from lightlm.runs.summary import show_summary

    if summary.run is None:
        typer.echo(f"{summary.reason} (--force)")
        return
    show_summary(summary.run)


def promote(
    version: Annotated[
        str,
        typer.Argument(
            autocompletion=complete_version,
            help="A version's number, an alias, or models:/NAME/VERSION.",
        ),
    ],
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Make a registered version champion by hand.

    The former champion gets the alias `previous`.
    """
    move_champion(find_home(), version, name, as_json)


def rollback(name: Name = None, as_json: AsJson = False) -> None:
    """Make the previous champion champion again.

    A second rollback undoes the first.
    """
    move_champion(find_home(), "previous", name, as_json)


def move_champion(home: Path, model: str, name: str | None, as_json: bool) -> None:
    """Make the version that `model` names champion, and print the former one.

    Raises:
        ModelVersionError: there is no such version, it is champion already, or its files are
            damaged.
    """
    from lightlm.tracking.catalog import parse_model, resolve
    from lightlm.tracking.registration import choose_champion

    if parse_model(model)[0] == model:
        check_alias(home, model, name)

    wanted = resolve(home, model, name)
    former = choose_champion(home, wanted)
    previous = None if former is None else former.version
    if as_json:
        print_json({"model_name": wanted.name, "champion": wanted.version, "previous": previous})
        return

    back = f"{name_command()} rollback --name {wanted.name}"
    before = (
        ""
        if previous is None
        else f"; version {previous} is previous, and `{back}` takes this back"
    )

    typer.echo(f"version {wanted.version} of {wanted.name} is champion{before}")


def check_alias(home: Path, word: str, name: str | None) -> None:
    """Refuse a bare word that names no version; a model's own name does not choose one.

    Raises:
        ModelVersionError: with the versions there are.
    """
    from lightlm.errors import ModelVersionError
    from lightlm.runs.retraining import find_model
    from lightlm.tracking.registry import list_versions

    chosen, _ = find_model(home, name)
    versions = list_versions(home, chosen) if chosen else []
    if any(word in version.aliases for version in versions):
        return

    numbers = ", ".join(version.version for version in versions[:10]) or "none"
    raise ModelVersionError(
        f"{word} is no version; wanted a number, an alias (challenger, previous) or "
        "models:/NAME/VERSION"
        + (f"; {chosen} has the versions {numbers}" if chosen else "; no model is registered yet")
    )
