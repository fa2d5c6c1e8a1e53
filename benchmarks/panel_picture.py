"""The picture of the panel in README.md: a recorded run, as its terminal showed it at one moment.

.venv/bin/python benchmarks/panel_picture.py RUN_FOLDER [--at 0.6] [--out docs/panel.svg]
"""

import argparse
import io
import re
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme

from lightlm.budget.plan import Plan
from lightlm.console.numbers import TrainingNumbers
from lightlm.console.panel import render_panel
from lightlm.runs.folder import LEDGER
from lightlm.store.journal import read_journal
from lightlm.tracking.record import JOURNAL
from lightlm.training.events import Event, Sampled, StepDone, Validated

COLUMNS = 92

LINES = 30

BLACK = (13, 17, 23)

WHITE = (230, 237, 243)

THEME = TerminalTheme(
    BLACK,
    WHITE,
    [BLACK, (255, 123, 114), (86, 211, 100), (227, 179, 65), (121, 192, 255), (210, 168, 255),
     (86, 212, 221), WHITE],
)  # fmt: skip
"""Colors that pass on a light page and on a dark one."""


@dataclass(frozen=True)
class Clock:
    """A moment of a run. Seconds."""

    elapsed_seconds: float
    budget_seconds: float

    @property
    def remaining_seconds(self) -> float:
        """Seconds until the deadline."""
        return self.budget_seconds - self.elapsed_seconds


@dataclass(frozen=True)
class Recorded:
    """What the record of a run holds of its training."""

    plan: Plan
    ended_ms: int
    events: list[tuple[int, Event]]
    """Milliseconds since the epoch, and what happened."""


def read_run(folder: Path) -> Recorded:
    """Return the plan and the events of a run's record.

    Raises:
        ValueError: the run has no plan.
    """
    plan: Plan | None = None
    at = 0
    events: list[tuple[int, Event]] = []
    progress = 0.0

    for record, _ in read_journal(folder / JOURNAL):
        at = int(record.get("time_ms", at))
        step = int(record.get("step", 0))
        values = record.get("values", {})
        path = str(record.get("path", ""))

        if path == "plan.json":
            plan = Plan.model_validate_json(record["content"])
        elif path.startswith("samples/step-"):
            number = int(re.sub(r"\D", "", path) or 0)
            events.append((at, Sampled(number, progress, "", record["content"])))
        elif "train/loss" in values and plan is not None:
            progress = values["budget/progress"]
            events.append((at, read_step(step, progress, values, plan)))

        if "validation/bits_per_byte" in values:
            events.append((at, Validated(step, progress, values["validation/bits_per_byte"], 0.0)))

    if plan is None:
        raise ValueError(f"{folder} has no plan; give the folder of a run that has trained")

    return Recorded(plan, at, events)


def read_step(step: int, progress: float, values: dict[str, float], plan: Plan) -> StepDone:
    """Return a recorded step as the event that it was."""
    batch = plan.trainer.batch_tokens
    return StepDone(
        step=step,
        progress=progress,
        loss=values["train/loss"],
        learning_rate_factor=values["train/learning_rate_factor"],
        gradient_norm=values["train/gradient_norm"],
        batch_tokens=batch,
        total_tokens=int(values["train/tokens"]),
        seconds=batch / values["throughput/tokens_per_second"],
        waited_seconds=0.0,
    )


def read_total_seconds(folder: Path) -> float:
    """Return the seconds that the run's ledger counted in all."""
    return max(float(record["seconds"]) for record, _ in read_journal(folder / LEDGER))


def render_picture(folder: Path, at: float, hours: float) -> str:
    """Return the panel as SVG, at a fraction of the budget."""
    run = read_run(folder)
    clock = Clock(at * hours * 3600, hours * 3600)
    numbers = TrainingNumbers()

    # The record and the ledger end at the same moment.
    moment = run.ended_ms - 1000 * (read_total_seconds(folder) - clock.elapsed_seconds)
    for recorded_ms, event in run.events:
        if recorded_ms <= moment:
            numbers.take(event)

    console = Console(
        record=True, width=COLUMNS, height=LINES, file=io.StringIO(), force_terminal=True,
        color_system="truecolor", legacy_windows=False,
    )  # fmt: skip
    stage = f"Training {run.plan.summary()}"
    console.print(render_panel(clock, stage, numbers, run.plan, 0, console))
    picture = console.export_svg(title="lightlm train", theme=THEME, unique_id="lightlm")

    # No font from the network: a page may be read without one.
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--at", type=float, default=0.6, help="fraction of the budget")
    parser.add_argument("--hours", type=float, default=0.02)
    parser.add_argument("--out", type=Path, default=Path("docs/panel.svg"))
    given = parser.parse_args()
    given.out.write_text(render_picture(given.folder, given.at, given.hours), encoding="utf-8")


if __name__ == "__main__":
    main()
