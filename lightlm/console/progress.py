"""Progress while a model is made: a live panel on a terminal, plain lines in a pipe.

It writes to standard error alone; standard output belongs to results. It knows only stage names,
events and the ledger's clock.
"""

import sys
from contextlib import ExitStack
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from lightlm.budget.plan import Plan
from lightlm.console.numbers import TrainingNumbers as TrainingNumbers
from lightlm.console.panel import BudgetClock, MemoryMeter, describe_plan, render_panel
from lightlm.console.terminal import (
    Hanging,
    forget_typed,
    is_live,
    open_console,
    render_text,
    without_echo,
)
from lightlm.training.events import (
    CheckpointDamaged,
    Checkpointed,
    Event,
    MicroBatchReduced,
    RolledBack,
    Sampled,
    StepDone,
    StepSkipped,
    Validated,
    WorkerRestarted,
)

LINE_SECONDS = 5.0
"""Seconds between two plain lines about steps: a 72-second run gets about ten."""

REFRESHES_PER_SECOND = 4
"""Refreshes of the live panel; each takes about 5 ms of a core that also trains."""

KIND_COLUMNS = 8

STOP_QUESTION = "Stop here? What is reached is kept, and the same command goes on. (y/n) "


class Progress:
    """What a person sees of a run from start to end; a context manager.

    With `quiet` it shows nothing; without `is_here` another process computes, whose memory is not
    this one's. Its methods do not raise where the reader is gone.
    """

    def __init__(
        self,
        ledger: BudgetClock,
        *,
        console: Console | None = None,
        quiet: bool = False,
        is_here: bool = True,
    ) -> None:
        self.ledger = ledger
        self.console = console or open_console()
        self.numbers = TrainingNumbers()
        self.stage = ""
        self.plan: Plan | None = None
        self._memory = MemoryMeter() if is_here else None
        self._stack = ExitStack()
        self._last_line = -LINE_SECONDS
        self.is_quiet = quiet
        self._live: Live | None = None
        if not quiet and is_live(self.console):
            self._live = self._open_live()

    def _open_live(self) -> Live:
        return Live(
            console=self.console,
            get_renderable=self.render,
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,
            redirect_stdout=False,
        )

    def __enter__(self) -> Self:
        if self._live:
            self._stack.enter_context(without_echo())
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the panel away; the lines stay."""
        if self._live:
            self._live.stop()
        self._stack.close()

    def follow(self, plan: Plan) -> None:
        """Know what the run was planned to reach: the forecast, and what the speed is a
        share of.
        """
        self.plan = plan

    def enter_stage(self, name: str) -> None:
        """Say that a stage begins, in the words of a person: "Preparing the tokenizer"."""
        self.stage = name
        self._print("stage", name)

    def log(self, message: str) -> None:
        """Print a line that stays: a notice, a warning, a choice and its reason."""
        self._print("note", message)

    def show(self, event: Event) -> None:
        """Take an event in: at once into the panel, now and then as a line."""
        self.numbers.take(event)
        if isinstance(event, StepDone):
            now = self.ledger.elapsed_seconds
            if not self._live and now - self._last_line >= LINE_SECONDS:
                self._last_line = now
                self._print("train", f"{event.progress:4.0%}  {', '.join(self._describe())}")
        elif isinstance(event, Validated):
            self._print(
                "score", f"step {event.step:,}: {event.bits_per_byte:.3f} bits per byte held out"
            )
        elif isinstance(event, Sampled):
            if not self._live:
                self._print("sample", " ".join(f"{event.prompt}{event.text}".split()))
        elif isinstance(event, StepSkipped):
            self._print("note", f"step {event.step:,} skipped: its loss or gradient is not usable")
        elif isinstance(event, MicroBatchReduced):
            self._print("note", f"out of memory: {event.micro_batch_size} sequences at a time now")
        elif isinstance(event, WorkerRestarted):
            self._print(
                "note", f"the worker died ({event.reason}); training resumes at step {event.step:,}"
            )
        elif isinstance(event, RolledBack):
            rates = f"{event.learning_rate_scale:.1%} of its learning rates"
            self._print(
                "note", f"{event.reason}: back to the weights of step {event.to_step:,}, at {rates}"
            )
        elif isinstance(event, CheckpointDamaged):
            goes_on = (
                f"training goes on from step {event.step:,}"
                if event.step
                else "training begins anew"
            )
            self._print("note", f"{event.reason}; it is kept in {event.folder}, and {goes_on}")
        elif isinstance(event, Checkpointed) and not self._live:
            self._print("saved", f"checkpoint of step {event.step:,}")

    def _describe(self) -> list[str]:
        return self.numbers.describe() + describe_plan(self.numbers, self.plan)

    def render(self) -> RenderableType:
        """Return the panel as it stands."""
        memory = self._memory.read() if self._memory else 0
        return render_panel(self.ledger, self.stage, self.numbers, self.plan, memory, self.console)

    def confirm_stop(self) -> bool:
        """Return whether a person wants the run to stop, asked in the panel's place; True where
        no one can answer.

        What computes goes on meanwhile.
        """
        if self._live is None or not sys.stdin.isatty():
            return True

        self._live.stop()
        self._stack.close()
        try:
            forget_typed()
            self.console.print(render_text(STOP_QUESTION), end="")
            return sys.stdin.readline().strip().lower() in ("y", "yes")
        finally:
            self._stack.enter_context(without_echo())
            # A panel that was stopped remembers its height, and would wipe as many lines of what
            # stands above.
            self._live = self._open_live()
            self._live.start()

    def _print(self, kind: str, message: str) -> None:
        if self.is_quiet:
            return

        stamp = Text(f"{self.ledger.elapsed_seconds:7.1f} s  {kind:<{KIND_COLUMNS}}", "dim")
        text = render_text(message, "dim")
        try:
            if self._live:
                self.console.print(Hanging(stamp, text))
            else:  # a file's reader searches by line
                self.console.print(stamp + text, soft_wrap=True)
        except OSError:
            # A full disk behind `2>`: the run goes on unseen. (A closed pipe ends in
            # PatientConsole.)
            self.is_quiet = True
