"""The command `store`: list, verify and prune the data under LIGHTLM_HOME."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lightlm.errors import CorruptError, LightLMError
from lightlm.json_object import JsonObject
from lightlm.quantities import count
from lightlm.store.home import find_home
from lightlm_flows.cli.options import AsJson, print_json

if TYPE_CHECKING:
    from lightlm.store.inventory import Item

store = typer.Typer(
    help="List, verify or prune the data under LIGHTLM_HOME.", invoke_without_command=True
)


@store.callback()
def show(context: typer.Context, as_json: AsJson = False) -> None:
    """List the data under LIGHTLM_HOME: kind, size, age and users."""
    if context.invoked_subcommand is not None:
        return

    from lightlm.store.inventory import list_items

    home = find_home(only_to_read=True)
    items = list_items(home)
    users = find_users(home)

    if as_json:
        print_json(
            {"home": str(home), "items": [describe(home, item, users(item)) for item in items]}
        )
        return

    render_items(home, items, users)


@store.command()
def verify(
    repair: Annotated[
        bool, typer.Option("--repair", help="Replace damaged versions by intact copies.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check every stored file and every registered version against its digest."""
    from lightlm.store.inventory import list_items, verify_item

    home = find_home(only_to_read=not repair)
    items = list_items(home)
    problems = [problem for item in items for problem in verify_item(item)]
    num_versions, damaged, repaired = verify_versions(home, is_repair=repair)
    problems += damaged

    if as_json:
        counts = {"num_items": len(items), "num_versions": num_versions}
        print_json({"home": str(home), **counts, "repaired": repaired, "problems": problems})
    else:
        for line in repaired:
            typer.echo(line)

    if problems:
        raise CorruptError("; ".join(problems))
    if not as_json:
        things = f"{count(len(items), 'item')} and {count(num_versions, 'registered version')}"
        typer.echo(f"{things} under {home}: every stored file is as it was written")


def verify_versions(home: Path, *, is_repair: bool) -> tuple[int, list[str], list[str]]:
    """Return the number of registered versions, their problems, and the repairs.

    Raises:
        TrackingError: MLflow's store cannot be used.
    """
    from lightlm.tracking import verification

    versions = verification.list_version_files(home)
    problems = []
    repaired = []

    for files in versions:
        damaged = verification.find_damage(home, files)
        if damaged is None:
            continue
        if not is_repair or damaged.intact is None:
            problems.append(damaged.describe())
            continue
        aside = verification.repair(home, damaged)
        kept = f"; the damaged files are in {aside}" if aside else ""
        repaired.append(f"{files.version.uri} has its files again, from {damaged.intact}{kept}")

    return len(versions), problems, repaired


@store.command()
def prune(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Only list what would be deleted.")
    ] = False,
    older_than: Annotated[
        float, typer.Option(min=0.0, help="Only what was not used for so many days.")
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Delete cached data that no run uses and that can be rebuilt.

    Runs, records and the champion stay.
    """
    from lightlm.quantities import format_bytes
    from lightlm.store.inventory import prune as prune_store

    home = find_home()
    users = find_users(home)
    gone, stays = prune_store(
        home, lambda item: bool(users(item)) or item.age_days < older_than, is_dry=dry_run
    )
    num_bytes = sum(item.num_bytes for item in gone)

    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "removed": [describe(home, item, "") for item in gone],
                "stays": [describe(home, item, why) for item, why in stays],
                "num_bytes": num_bytes,
            }
        )
        return

    verb = "would remove" if dry_run else "removed"
    for item in gone:
        typer.echo(f"{verb} {item.kind} {item.path.name}: {format_bytes(item.num_bytes)}")
    for item, why in stays:
        typer.echo(f"kept {item.kind} {item.path.name}: {why}", err=True)
    typer.echo(f"{format_bytes(num_bytes)} {'would be freed' if dry_run else 'freed'}")


def find_users(home: Path) -> "Callable[[Item], str]":
    """Return a function that names an item's users: unfinished runs or aliases; "" without one."""
    from lightlm.runs.folder import OVER, read_decisions
    from lightlm.store.inventory import COPY, RUN, RUNS

    unfinished: dict[str, str] = {}
    for journal in sorted((home / RUNS).glob("*/run-*.journal")):
        decisions = read_decisions(journal)
        if OVER not in decisions:
            unfinished[journal.parent.name] = str(decisions)

    aliases = read_aliases(home)

    def find(item: "Item") -> str:
        if item.kind == RUN:
            return "unfinished" if item.path.name in unfinished else ""
        if item.kind == COPY:
            # Where MLflow cannot be asked, every copy counts as needed.
            return (
                aliases.get((item.path.parent.name, item.path.name), "")
                if aliases is not None
                else "MLflow is away"
            )

        named = [name for name, decisions in unfinished.items() if item.path.name in decisions]
        # A run does not note its tokenizer's fingerprint; all are small.
        return ", ".join(sorted(unfinished) if item.kind == "tokenizers" else named)

    return find


def read_aliases(home: Path) -> dict[tuple[str, str], str] | None:
    """Return the aliases of versions with copies here; None if MLflow does not answer."""
    from lightlm.store.inventory import MODELS

    names = [path.name for path in (home / MODELS).iterdir()] if (home / MODELS).is_dir() else []
    if not names:
        return {}

    from lightlm.tracking.registry import list_versions

    try:
        versions = [version for name in names for version in list_versions(home, name)]
    except LightLMError:
        return None

    listed = {(version.name, version.version): ", ".join(version.aliases) for version in versions}
    # A copy that the registry does not know could not be fetched again.
    copies = [(path.parent.name, path.name) for path in (home / MODELS).glob("*/*")]
    return {copy: listed.get(copy, "not in the registry") for copy in copies}


def describe(home: Path, item: "Item", users: str) -> JsonObject:
    """Return an item as JSON."""
    return {
        "path": str(item.path.relative_to(home)),
        "kind": item.kind,
        "num_bytes": item.num_bytes,
        "age_days": round(item.age_days, 3),
        "used_by": users,
    }


def render_items(home: Path, items: "list[Item]", users: "Callable[[Item], str]") -> None:
    """Print the table of items."""
    from lightlm.console.tables import open_table
    from lightlm.console.terminal import open_console, render_text
    from lightlm.quantities import format_bytes, format_seconds
    from lightlm.store.inventory import COPY

    table = open_table("kind", "name", "size", "last used", "used by")
    for item in items:
        table.add_row(
            render_text(item.kind),
            render_text(
                f"{item.path.parent.name}/{item.path.name}" if item.kind == COPY else item.path.name
            ),
            format_bytes(item.num_bytes),
            f"{format_seconds(item.age_days * 86_400)} ago",
            render_text(users(item)),
        )

    console = open_console(sys.stdout)
    if items:
        console.print(table)

    total = format_bytes(sum(item.num_bytes for item in items))
    console.print(
        f"{total} in {count(len(items), 'item')} under {home}"
        if items
        else f"Nothing stored in {home}",
        soft_wrap=True,
    )
