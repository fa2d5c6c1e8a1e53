"""Tables of forecasts: other budgets, and the calibration of earlier plans."""

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lightlm.budget.forecast import Forecast, PlanAccuracy
from lightlm.budget.history import FinishedRun
from lightlm.budget.machine_forecast import MachineForecast
from lightlm.console.tables import open_table
from lightlm.console.terminal import render_text

MAX_RUNS = 30
"""Runs shown, the newest; `--json` gives them all."""


def render_forecasts(forecasts: Sequence[Forecast]) -> RenderableType:
    """Return what other budgets would reach on this text with this machine."""
    table = open_table("in", "hours", "expected bits per byte", "with")
    for entry in forecasts:
        table.add_row(
            render_text(entry.name),
            f"{entry.hours:.2g}",
            Text(f"{entry.bits_per_byte:.3f} ({entry.low:.3f} to {entry.high:.3f})"),
            render_text(entry.shape),
        )
    return table


def render_machines(forecasts: Sequence[MachineForecast]) -> RenderableType:
    """Return a line per machine, the best in the longest budget first, and a column per budget."""
    budgets = list(dict.fromkeys(entry.budget for entry in forecasts))
    rows: dict[str, list[MachineForecast]] = {}
    for entry in forecasts:
        rows.setdefault(entry.machine, []).append(entry)

    table = open_table("machine", *budgets, "shape in the longest")
    for name, row in sorted(rows.items(), key=lambda one: one[1][-1].bits_per_byte):
        cells = [
            Text(f"{entry.bits_per_byte:.3f} ({entry.low:.2f} to {entry.high:.2f})")
            for entry in row
        ]
        table.add_row(render_text(name), *cells, render_text(row[-1].shape))
    return table


def render_calibration(runs: Sequence[FinishedRun], judged: PlanAccuracy) -> RenderableType:
    """Return a line per run, oldest first, and their summary."""
    table = open_table("ended", "hours", "data set", "predicted", "reached", "error", "")
    for index in (1, 4, 5):
        table.columns[index].justify = "right"
    for run in runs[-MAX_RUNS:]:
        _add(table, run)
    summary = (
        f"  {judged.num_as_predicted} of {judged.num_runs} runs within the interval of their plan; "
        f"mean error {judged.mean_error:+.1%}, mean size of an error "
        f"{judged.mean_absolute_error:.1%}"
    )
    return Group(table, render_text(summary))


def _add(table: Table, run: FinishedRun) -> None:
    error = run.bits_per_byte / run.predicted_bits_per_byte - 1
    ended = datetime.fromtimestamp(run.ended_at, UTC).astimezone()
    table.add_row(
        f"{ended:%Y-%m-%d %H:%M}",
        f"{run.hours:g}",
        render_text(run.dataset),
        f"{run.predicted_bits_per_byte:.3f} ({run.predicted_low:.3f} to {run.predicted_high:.3f})",
        f"{run.bits_per_byte:.3f}",
        Text(f"{error:+.1%}", "" if run.is_as_predicted else "yellow"),
        render_text("" if run.is_as_predicted else "outside"),
    )
