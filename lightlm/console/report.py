"""The report at the end of a run: the version, its score against the plan, time, next commands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.text import Text

from lightlm.console.tables import render_ledger
from lightlm.console.terminal import Hanging, choose_marks, render_text
from lightlm.quantities import format_bytes, format_count, format_seconds


@dataclass(frozen=True)
class RunReport:
    """The values of the report. Scores in bits per byte, times in seconds."""

    version_name: str
    bits_per_byte: float
    scored_bytes: int
    predicted_low: float
    predicted_high: float
    num_parameters: int
    total_tokens: int
    training_seconds: float
    elapsed_seconds: float
    budget_seconds: float
    shape: str
    promotion: str
    parts: str = ""
    """The scores of network and counts alone, as a clause."""
    texts: Sequence[str] = ()
    """Shares and scores of further texts, a clause each."""
    energy: str = ""
    """What the run took, as a clause; empty where nothing could be read."""
    ledger: Mapping[str, float] = field(default_factory=dict)
    notices: Sequence[str] = ()
    next_commands: Sequence[str] = ()


def render_report(report: RunReport, console: Console) -> RenderableType:
    """Return the whole report; the version and its score come first."""
    lines: list[RenderableType] = [
        Text(""),
        render_text(
            f"{choose_marks(console).passed} {report.version_name}: {report.bits_per_byte:.3f} "
            f"bits per byte on {format_bytes(report.scored_bytes)} of held-out text{report.parts}",
            "bold green",
        ),
        indent(compare_with_plan(report)),
        *map(indent, report.texts),
        indent(
            f"{report.shape}: {format_count(report.num_parameters)} parameters, "
            f"{format_count(report.total_tokens)} tokens in "
            f"{format_seconds(report.training_seconds)} of training"
        ),
        indent(report.promotion),
        indent(format_time_used(report.elapsed_seconds, report.budget_seconds)),
    ]
    if report.energy:
        lines.append(indent(report.energy))

    lines += [
        Hanging(Text("  ! ", "yellow"), render_text(notice, "yellow")) for notice in report.notices
    ]
    if report.ledger:
        lines.append(render_ledger(report.ledger, report.budget_seconds))
    lines += [render_text(f"  {command}", "cyan") for command in report.next_commands]
    return Group(*lines)


def indent(text: str) -> RenderableType:
    """Return untrusted text, two columns in on each of its lines."""
    return Hanging(Text("  "), render_text(text))


def compare_with_plan(report: RunReport) -> str:
    """Return how the score stands to the interval that the plan gave before training."""
    interval = f"{report.predicted_low:.3f} to {report.predicted_high:.3f}"
    if report.bits_per_byte < report.predicted_low:
        return f"better than predicted ({interval})"
    if report.bits_per_byte > report.predicted_high:
        return f"worse than predicted ({interval})"
    return f"as predicted ({interval})"


def format_time_used(elapsed_seconds: float, budget_seconds: float) -> str:
    """Return the wall clock of the run against its budget."""
    over = elapsed_seconds - budget_seconds
    used = f"{format_seconds(elapsed_seconds)} of {format_seconds(budget_seconds)}"
    return f"{used} used" if over <= 0 else f"{used} used: {format_seconds(over)} over the budget"
