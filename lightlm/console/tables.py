"""Tables: the system check, the plan with its runners-up and reasons, the ledger, the versions.

Each function returns a rich renderable; the caller prints it. Text from outside is escaped here.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from lightlm.budget.plan import Plan
from lightlm.console.sparkline import render_sparkline
from lightlm.console.terminal import Hanging, choose_marks, render_text
from lightlm.data.origin import list_names, read_origin
from lightlm.evaluation.task_scores import TaskScore
from lightlm.quantities import format_bytes, format_count, format_seconds
from lightlm.system import Check

if TYPE_CHECKING:
    from lightlm.tracking.catalog import RegisteredModel
    from lightlm.tracking.registry import ModelVersion

MAX_ALTERNATIVES = 4
"""Runners-up shown; the plan's file holds them all."""

SPARKS = 8
"""Characters of a loss curve."""

STYLES = {"pass": "green", "warn": "yellow", "fail": "red"}


def render_checks(
    checks: Sequence[Check], console: Console, name_columns: int = 0
) -> RenderableType:
    """Return the system check, a marked line each, and below a line what to do about it.

    `name_columns` is the least width of the names, so that checks drawn one by one stand in line.
    """
    marks = choose_marks(console)
    signs = {"pass": marks.passed, "warn": marks.warned, "fail": marks.failed}
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(min_width=name_columns)

    for check in checks:
        style = STYLES[check.status]
        message = render_text(check.message)
        if check.fix:
            message.append("\n").append_text(render_text(check.fix, style))
        table.add_row(Text(signs[check.status], style), render_text(check.name), message)

    return table


def render_plan(plan: Plan, console: Console) -> RenderableType:
    """Return the plan in force, the best plans not taken, and the reasons."""
    table = open_table("plan", "predicted bits per byte")
    table.columns[1].justify = "right"
    table.add_row(
        render_text(f"{choose_marks(console).chosen} {plan.summary()}", "bold"),
        Text(
            f"{plan.predicted_bits_per_byte:.3f} ({plan.predicted_low:.3f} to "
            f"{plan.predicted_high:.3f})",
            "bold",
        ),
    )
    if plan.counts is not None and plan.is_mixed:
        table.add_row(
            render_text("  with count tables", "bold"),
            Text(plan.format_prediction(), "bold"),
        )

    for alternative in plan.alternatives[:MAX_ALTERNATIVES]:
        table.add_row(
            render_text(f"  {alternative.summary}", "dim"),
            Text(f"{alternative.predicted_bits_per_byte:.3f}", "dim"),
        )

    facts = (
        f"{format_count(plan.num_parameters)} parameters, {format_count(plan.expected_tokens)} "
        f"tokens ({plan.expected_epochs:.1f} epochs) at {plan.tokens_per_second:,.0f} tokens/s, "
        f"{format_bytes(plan.memory_bytes)} of memory, {format_seconds(plan.training_seconds)} of "
        f"training and {format_seconds(plan.reserve_seconds)} kept for what follows"
    )

    reasons = [Hanging(Text("  - "), render_text(reason)) for reason in plan.reasons]
    return Group(table, Hanging(Text("  "), render_text(facts)), *reasons)


def render_ledger(entries: Mapping[str, float], budget_seconds: float) -> RenderableType:
    """Return where the budget's seconds went, in the order they were spent, and what is left."""
    table = open_table("stage", "time", "of the budget")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, seconds in entries.items():
        table.add_row(render_text(name), format_seconds(seconds), f"{seconds / budget_seconds:.1%}")
    spent = sum(entries.values())
    table.add_section()
    table.add_row("all", format_seconds(spent), f"{spent / budget_seconds:.1%}", style="bold")
    return table


def render_models(models: "Sequence[RegisteredModel]") -> RenderableType:
    """Return a line a registered model, in the order given; scores of different texts do not
    compare.
    """
    table = open_table(
        "model", "versions", "champion", "bits per byte", "data set", "hours", "trained"
    )
    for index in (1, 2, 3, 5):
        table.columns[index].justify = "right"

    for model in models:
        shown = model.shown
        table.add_row(
            render_text(model.name, "bold"),
            str(model.num_versions),
            render_text("none" if model.champion is None else model.champion.version),
            _format_number(shown.tags.get("bits_per_byte"), "{:.3f}"),
            render_text(_name_text(shown.tags)),
            _format_number(shown.tags.get("hours"), "{:g}"),
            _format_time(shown.created_at),
        )

    return table


def render_versions(
    versions: "Sequence[ModelVersion]",
    losses: Mapping[str, Sequence[float]] | None = None,
    runs: Mapping[str, str] | None = None,
    *,
    is_unicode: bool = True,
) -> RenderableType:
    """Return the registered versions, newest first as they are given.

    `losses` and `runs` are the curves and names of the runs that this machine has a record of, by
    MLflow's id; without any there is no such column.
    """
    names = ("version", "aliases", "bits per byte", "parameters", "data set", "hours", "registered")
    table = open_table(*names, *(["run"] if runs else []), *(["loss"] if losses else []))
    for index in (2, 3, 5):
        table.columns[index].justify = "right"

    for version in versions:
        tags = version.tags
        table.add_row(
            render_text(version.version),
            render_text(", ".join(version.aliases), "bold"),
            _format_number(tags.get("bits_per_byte"), "{:.3f}"),
            _format_number(tags.get("num_parameters"), "count"),
            render_text(_name_text(tags)),
            _format_number(tags.get("hours"), "{:g}"),
            _format_time(version.created_at),
            *([render_text(runs.get(version.run_id, ""))] if runs else []),
            *(
                [render_sparkline(losses.get(version.run_id, ()), SPARKS, is_unicode=is_unicode)]
                if losses
                else []
            ),
        )

    return table


def render_task_scores(scores: Sequence[TaskScore]) -> RenderableType:
    """Return a line a metric of a task, in the harness's order."""
    table = open_table("task", "metric", "score", "documents", "examples shown")
    for column in table.columns[2:]:
        column.justify = "right"
    for score in scores:
        table.add_row(
            render_text(score.task),
            render_text(score.metric),
            score.format(),
            "" if score.num_documents is None else f"{score.num_documents:,}",
            "" if score.num_fewshot is None else str(score.num_fewshot),
        )
    return table


def render_side_by_side(texts: Mapping[str, str]) -> RenderableType:
    """Return the texts, escaped, in columns of the same width under their names."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    for name in texts:
        table.add_column(render_text(name), ratio=1, overflow="fold")
    table.add_row(*(render_text(text) for text in texts.values()))
    return table


def open_table(*names: str) -> Table:
    """Return an empty table with a line under its header."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for name in names:
        table.add_column(name)
    return table


def _name_text(tags: Mapping[str, str]) -> str:
    origin = read_origin(tags.get("lightlm.dataset"))
    return tags.get("dataset", "") if origin is None else list_names(origin)[0]


def _format_number(text: str | None, layout: str) -> Text:
    # Tags are strings that anybody may have written in MLflow's own pages.
    try:
        number = float(text or "")
    except ValueError:
        return render_text(text or "")
    return Text(format_count(number) if layout == "count" else layout.format(number))


def _format_time(moment: datetime) -> Text:
    return Text(f"{moment.astimezone():%Y-%m-%d %H:%M}")
