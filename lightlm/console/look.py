"""The page of a data set: files, what was left out and why, both sides of the split, examples."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from lightlm.console.tables import open_table
from lightlm.console.terminal import Hanging, render_text
from lightlm.data.files.record import DataRecord, LeftOutRecord
from lightlm.data.look import Look
from lightlm.params import Weight
from lightlm.quantities import count, format_bytes

SHOWN_FILES = 20
SHOWN_LEFT_OUT = 12
"""Rows of each table; `--json` gives all."""

BRIEFLY_LEFT_OUT = 3
"""Files left out that a short look names."""


def render_look(found: Look, weight: Weight | None = None) -> RenderableType:
    """Return the whole page; `weight` is that of a further text."""
    record = found.record
    mixed = "" if weight is None else f", mixed in ({format_weight(weight)})"
    blocks: list[RenderableType] = [
        *([] if weight is None else [Text()]),
        render_text(f"{found.name}, from {found.source}{mixed}", "bold"),
        render_text(_format_sizes(record)),
    ]
    if record.sources:
        blocks += [Text(), _render_files(record)]

    if record.left_out:
        blocks += [Text(), Text("Left out", "bold"), _render_left_out(record.left_out)]

    notes = [
        Hanging(Text("  . "), render_text(note))
        for note in [*list(record.summary_lines())[1:], *found.quality.describe()]
    ]
    warnings = [
        Hanging(Text("  ! ", "yellow"), render_text(warning, "yellow"))
        for warning in record.warnings
    ]
    blocks += [Text(), *notes, *warnings] if notes or warnings else []

    for example in found.examples:
        label = (
            f"{example.place} "
            f"({format_bytes(example.bytes)}{f'; {example.why}' if example.why else ''})"
        )
        blocks += [
            Text(),
            render_text(label, "bold"),
            Hanging(Text("  "), render_text(" ".join(example.text.split()))),
        ]

    return Group(*blocks)


def format_weight(weight: Weight) -> str:
    """Return what a weight means, in words."""
    if isinstance(weight, float):
        return f"{weight:.0%} of the tokens that training reads"
    return "all of it once" if weight == "once" else "a share that the plan chooses"


def render_summary(found: Look) -> Iterator[tuple[str, str]]:
    """Yield (line, style): the sizes, what is left out and why, what is odd, and how the text
    begins.
    """
    record = found.record
    yield _format_sizes(record), ""
    yield from ((line, "dim") for line in [*record.summary_lines(), *found.quality.describe()])
    for path, reason in list(_first_of_each(record.left_out))[:BRIEFLY_LEFT_OUT]:
        yield f"  not read: {path}: {reason}", "dim"
    yield from ((f"  {warning}", "yellow") for warning in record.warnings)
    for example in found.examples[:1]:
        yield f"It begins: {' '.join(example.text.split())}", "dim"


def _format_sizes(record: DataRecord) -> str:
    sizes = (
        f"{format_bytes(record.train_bytes)} to train on, {format_bytes(record.validation_bytes)} "
        "held out"
    )
    return f"{count(record.documents, 'document')}: {sizes} ({record.split})"


def _render_files(record: DataRecord) -> RenderableType:
    table = open_table("file", "kind", "split", "encoding", "column", "documents", "bytes", "used")
    for index in (5, 6):
        table.columns[index].justify = "right"

    for row in record.sources[:SHOWN_FILES]:
        cells = (row.path, row.kind, row.split, row.encoding, row.column or "")
        table.add_row(
            *map(render_text, cells),
            f"{row.documents:,}",
            format_bytes(row.bytes),
            "yes" if row.used else "no",
        )

    if len(record.sources) > SHOWN_FILES:
        table.add_row(f"... and {len(record.sources) - SHOWN_FILES:,} more")

    return table


def _render_left_out(left_out: list[LeftOutRecord]) -> RenderableType:
    table = open_table("file", "reason")
    for path, reason in _first_of_each(left_out):
        table.add_row(render_text(path), render_text(reason))
    return table


def _first_of_each(left_out: list[LeftOutRecord]) -> Iterator[tuple[str, str]]:
    """Yield all rows where they are few; else one for each reason, with how many there are."""
    if len(left_out) <= SHOWN_LEFT_OUT:
        yield from ((one.path, one.reason) for one in left_out)
        return
    reasons: dict[str, list[str]] = {}
    for one in left_out:
        reasons.setdefault(one.reason, []).append(one.path)
    for reason, paths in reasons.items():
        yield paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1:,} more", reason
