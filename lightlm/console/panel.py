"""The live panel: time left, the plan, numbers, the curve against the forecast, the current
sample.

It renders what it is given, in two thirds of 80 x 24 characters.
"""

import time
from collections.abc import Callable
from typing import Protocol

import psutil
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lightlm.budget.plan import Plan
from lightlm.budget.scaling import predict_loss
from lightlm.console.curve import choose_rows, render_curves
from lightlm.console.numbers import TrainingNumbers
from lightlm.console.terminal import render_text
from lightlm.model.accounting import count_matrix_parameters, flops_per_token
from lightlm.quantities import format_bytes, format_seconds
from lightlm.training.events import Sampled

SAMPLE_LINES = 3

MEMORY_SECONDS = 2.0
"""Seconds between two readings of the processes' memory; each takes about 2 ms."""

CURVE_LINES = 20
"""Lines of the terminal from which the curve has room."""


class BudgetClock(Protocol):
    """What the panel needs of a ledger. Seconds."""

    @property
    def elapsed_seconds(self) -> float:
        """Since the start."""
        ...

    @property
    def remaining_seconds(self) -> float:
        """Until the deadline."""
        ...

    @property
    def budget_seconds(self) -> float:
        """All together; 0 where nothing ends by the clock."""
        ...


class MemoryMeter:
    """The memory of this process and all that it started, looked at now and then."""

    def __init__(self) -> None:
        self._known, self._at = 0, float("-inf")

    def read(self) -> int:
        """Return bytes resident; 0 where the system does not report them."""
        if time.monotonic() - self._at >= MEMORY_SECONDS:
            self._at = time.monotonic()
            self._known = read_memory()
        return self._known


def read_memory() -> int:
    """Return the bytes that this process and its descendants hold."""
    total = 0
    try:
        own = psutil.Process()
        for process in (own, *own.children(recursive=True)):
            try:
                total += process.memory_info().rss
            except psutil.Error:  # it ended meanwhile
                continue
    except psutil.Error:
        return total
    return total


def render_panel(
    clock: BudgetClock,
    stage: str,
    numbers: TrainingNumbers,
    plan: Plan | None,
    memory: int,
    console: Console,
) -> RenderableType:
    """Return the panel; `memory` in bytes, 0 where it is not known."""
    lines: list[RenderableType] = [render_budget(clock), render_text(stage, "bold")]
    if phrases := numbers.describe():
        lines.append(Text("   ".join(phrases), no_wrap=True, overflow="ellipsis"))

    if details := [
        *describe_plan(numbers, plan),
        *([f"memory {format_bytes(memory)}"] if memory else []),
    ]:
        lines.append(Text("   ".join(details), no_wrap=True, overflow="ellipsis"))

    if plan is not None and console.height >= CURVE_LINES:
        lines += render_forecast(numbers, plan, console)
    if numbers.sample:
        lines.append(render_sample(numbers.sample, console))

    return Panel(Group(*lines), title="lightlm", title_align="left", border_style="dim")


def render_budget(clock: BudgetClock) -> RenderableType:
    """Return the bar of the budget with the time left; without a budget, the time that passed."""
    budget = clock.budget_seconds
    elapsed = clock.elapsed_seconds
    if not budget:
        return Text(format_seconds(elapsed), justify="right")

    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True, justify="right")
    bar.add_row(
        # Rich's own color of a bar is a red that looks like an error.
        ProgressBar(
            total=budget,
            completed=min(elapsed, budget),
            complete_style="cyan",
            finished_style="green",
        ),
        f"{format_seconds(elapsed)} of {format_seconds(budget)}, "
        f"{format_seconds(clock.remaining_seconds)} left",
    )

    return bar


def describe_plan(numbers: TrainingNumbers, plan: Plan | None) -> list[str]:
    """Return what only the plan can say of the numbers: the share of the machine's limit, the
    learning rate.
    """
    phrases = []
    if plan is not None and (speed := numbers.tokens_per_second) is not None:
        share = flops_per_token(plan.model) * speed / plan.matrix_flops_per_second
        phrases.append(f"{share:.0%} of the machine's limit")
    if plan is not None and numbers.learning_rate_factor is not None:
        phrases.append(
            f"learning rate {numbers.learning_rate_factor * plan.trainer.matrix_learning_rate:.2g}"
        )
    if plan is not None and plan.trainer.device != "cpu":
        phrases.append(f"{plan.trainer.device} {format_bytes(plan.memory_bytes)} planned")
    return phrases


def render_forecast(numbers: TrainingNumbers, plan: Plan, console: Console) -> list[RenderableType]:
    """Return the curve of bits per byte with the forecast's, and a line that names them; nothing
    before training.
    """
    is_unicode = console.encoding.lower().startswith("utf")
    reached = numbers.bits_curve(plan.bytes_per_token)
    lines = render_curves(
        reached,
        numbers.held_out,
        predict_curve(plan),
        max(20, console.width - 4),
        choose_rows(console.height),
        is_unicode=is_unicode,
    )

    if not lines:
        return []

    mark = "●" if is_unicode else "o"
    legend = f"bits per byte: {mark} held out, line training, dots forecast "
    legend += (
        f"{plan.predicted_bits_per_byte:.3f} ({plan.predicted_low:.2f}-{plan.predicted_high:.2f})"
    )

    return [*lines, Text(legend, "dim", no_wrap=True, overflow="ellipsis")]


def predict_curve(plan: Plan) -> Callable[[float], float] | None:
    """Return the bits per byte that the plan's law gives to a run that ends at a fraction of the
    budget.

    It ends in what the plan predicted. On the way a run lies above it: its learning rate has not
    come down yet.
    """
    if plan.bytes_per_token <= 0 or plan.expected_tokens <= 0:
        return None

    size = count_matrix_parameters(plan.model)
    seen = plan.expected_tokens * plan.bytes_per_token
    unique = seen / max(plan.expected_epochs, 1e-9)
    end = predict_loss(size, seen, unique, plan.difficulty).bits_per_byte

    def predict(progress: float) -> float:
        law = predict_loss(size, max(progress, 1e-3) * seen, unique, plan.difficulty).bits_per_byte
        return law * plan.predicted_bits_per_byte / end

    return predict


def render_sample(sample: Sampled, console: Console) -> Text:
    """Return the text that the model wrote last, escaped, in a few lines."""
    width = max(20, console.width - 6) * SAMPLE_LINES
    words = " ".join(f"{sample.prompt}{sample.text}".split())
    return render_text(words if len(words) <= width else f"{words[: width - 3]}...", "italic dim")
