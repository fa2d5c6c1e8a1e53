"""The table of runs: start, data set, state, predicted and reached score, loss as a sparkline."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.text import Text

from lightlm.console.sparkline import render_sparkline
from lightlm.console.tables import open_table
from lightlm.console.terminal import can_show_blocks, render_text
from lightlm.quantities import format_count

if TYPE_CHECKING:
    from lightlm.tracking.runs import RecordedRun

NARROW = 100
"""Columns below which size and loss are left out and the version names the text, to fit into 80."""

VERSION_WIDTH = 18
"""Columns for a version, and for a data set."""

DATASET = 2
SIZE = 6
"""Indexes of a line's cells for the data set and the model's size."""

RIGHT = ("hours", "bits per byte (plan)", "score (plan)", "size")

STYLES = {
    "running": "cyan",
    "finished": "green",
    "failed": "red",
    "stopped": "yellow",
    "died": "yellow",
}


def render_runs(runs: "Sequence[RecordedRun]", console: Console) -> RenderableType:
    """Return a line a run, in the order given."""
    is_narrow = console.width < NARROW
    names = (
        "run",
        "started",
        "data set",
        "hours",
        "state",
        "bits per byte (plan)",
        "size",
        "version",
        "loss",
    )

    if is_narrow:
        names = ("run", "started", "model", "hours", "state", "score (plan)")

    table = open_table(*names)
    for column, name in zip(table.columns, names, strict=True):
        column.justify = "right" if name in RIGHT else "left"
        column.no_wrap = True
        column.overflow = "ellipsis"
        column.max_width = VERSION_WIDTH if name in ("model", "data set", "version") else None

    for run in runs:
        cells = [
            render_text(run.run.rpartition("-")[2]),
            f"{datetime.fromtimestamp(run.started_at, UTC).astimezone():%m-%d %H:%M}",
            render_text(run.dataset),
            "" if run.hours is None else f"{run.hours:g}",
            Text(run.state, STYLES.get(run.state, "")),
            format_scores(run.bits_per_byte, run.predicted_bits_per_byte),
            "" if run.num_parameters is None else format_count(run.num_parameters),
            render_text(format_version(run.version)),
            render_sparkline(run.losses, 20, is_unicode=can_show_blocks(console)),
        ]
        if is_narrow:
            model = format_version(run.version) or run.dataset
            cells = [*cells[:DATASET], render_text(model), *cells[DATASET + 1 : SIZE]]
        table.add_row(*cells)

    return table


def format_version(version: str | None) -> str:
    """Return "notes 3" of models:/notes/3, the name shortened to fit VERSION_WIDTH columns."""
    name, _, number = (version or "").removeprefix("models:/").rpartition("/")
    room = VERSION_WIDTH - len(number) - 1
    return f"{name if len(name) <= room else name[: room - 1] + '~'} {number}".strip()


def format_scores(reached: float | None, predicted: float | None) -> str:
    """Return "1.784 (1.81)": the reached score and, in brackets, the predicted one."""
    first = "-" if reached is None else f"{reached:.3f}"
    return first if predicted is None else f"{first} ({predicted:.2f})"
