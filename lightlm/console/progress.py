"""Progress while a model is made: a live panel on a terminal, plain lines in a pipe.

Owns what is shown and how often, on standard error alone; standard output belongs to results. It
learns everything from stage names, events and the ledger's clock, and decides nothing.
"""

from collections import deque
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lightlm.budget.ledger import Ledger
from lightlm.console.quantities import say_count, say_seconds
from lightlm.console.terminal import draw_text, is_live, open_console
from lightlm.training.events import (
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
"""Between two plain lines about steps: a 72-second run gets about ten."""

DRAWINGS_A_SECOND = 4
"""Of the live panel; it costs about 1 ms each, on a core that also trains."""

STEPS_SHOWN = 20
"""Steps that the shown loss and speed are means over: one step's loss jumps too much to read."""

SAMPLE_LINES = 3
KIND_COLUMNS = 8


class TrainingNumbers:
    """The latest of what the events say, smoothed over the last steps."""

    def __init__(self) -> None:
        self.step = 0
        self.total_tokens = 0
        self.progress = 0.0
        self.bits_per_byte: float | None = None
        self.sample: Sampled | None = None
        self._recent: deque[StepDone] = deque(maxlen=STEPS_SHOWN)

    def take(self, event: Event) -> None:
        """Learn from an event."""
        self.step = max(self.step, event.step)
        self.progress = max(self.progress, event.progress)
        if isinstance(event, StepDone):
            self.total_tokens = event.total_tokens
            self._recent.append(event)
        elif isinstance(event, Validated):
            self.bits_per_byte = event.bits_per_byte
        elif isinstance(event, Sampled):
            self.sample = event

    @property
    def loss(self) -> float | None:
        """Nats a token, the mean of the last steps; None before the first."""
        losses = [step.loss for step in self._recent]
        return sum(losses) / len(losses) if losses else None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens a second over the last steps; None before the first."""
        seconds = sum(step.seconds for step in self._recent)
        return sum(step.batch_tokens for step in self._recent) / seconds if seconds > 0 else None

    def describe(self) -> list[str]:
        """Return what is known, a phrase each."""
        phrases = [f"step {self.step:,}"] if self.step else []
        if self.loss is not None:
            phrases.append(f"loss {self.loss:.3f}")
        if self.bits_per_byte is not None:
            phrases.append(f"{self.bits_per_byte:.3f} bits per byte")
        if self.tokens_per_second is not None:
            phrases.append(f"{self.tokens_per_second:,.0f} tokens/s")
        if self.total_tokens:
            phrases.append(f"{say_count(self.total_tokens)} tokens")
        return phrases


class Progress:
    """What a person sees of a run from start to end; a context manager.

    With `is_quiet` it shows nothing. Its methods never raise because nobody reads any more.
    """

    def __init__(self, ledger: Ledger, *, console: Console | None = None, quiet: bool = False) -> None:
        self.ledger = ledger
        self.console = console or open_console()
        self.numbers = TrainingNumbers()
        self.stage = ""
        self._last_line = -LINE_SECONDS
        self.is_quiet = quiet
        self._live: Live | None = None
        if not quiet and is_live(self.console):
            self._live = Live(
                console=self.console,
                get_renderable=self.draw,
                refresh_per_second=DRAWINGS_A_SECOND,
                transient=True,
                redirect_stdout=False,
            )

    def __enter__(self) -> Self:
        """Start drawing."""
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the panel away; the lines stay."""
        if self._live:
            self._live.stop()

    def enter_stage(self, name: str) -> None:
        """Say that a stage begins, in the words of a person: "Preparing the tokenizer"."""
        self.stage = name
        self._print("stage", name)

    def say(self, message: str) -> None:
        """Print a line that stays: a notice, a warning, a choice and its reason."""
        self._print("note", message)

    def show(self, event: Event) -> None:
        """Take an event in: at once into the panel, now and then as a line."""
        self.numbers.take(event)
        if isinstance(event, StepDone):
            now = self.ledger.elapsed_seconds
            if not self._live and now - self._last_line >= LINE_SECONDS:
                self._last_line = now
                self._print("train", f"{event.progress:4.0%}  {', '.join(self.numbers.describe())}")
        elif isinstance(event, Validated):
            self._print("score", f"step {event.step:,}: {event.bits_per_byte:.3f} bits per byte held out")
        elif isinstance(event, Sampled):
            if not self._live:
                self._print("sample", " ".join(f"{event.prompt}{event.text}".split()))
        elif isinstance(event, StepSkipped):
            self._print("note", f"step {event.step:,} skipped: its loss or gradient is not usable")
        elif isinstance(event, MicroBatchReduced):
            self._print("note", f"out of memory: {event.micro_batch_size} sequences at a time now")
        elif isinstance(event, WorkerRestarted):
            self._print("note", f"the worker died ({event.reason}); training resumes at step {event.step:,}")
        elif isinstance(event, RolledBack):
            rates = f"{event.learning_rate_share:.1%} of its learning rates"
            self._print("note", f"{event.reason}: back to the weights of step {event.to_step:,}, at {rates}")
        elif isinstance(event, Checkpointed) and not self._live:
            self._print("saved", f"checkpoint of step {event.step:,}")

    def draw(self) -> RenderableType:
        """Return the panel as it stands."""
        budget, elapsed = self.ledger.budget_seconds, self.ledger.elapsed_seconds
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True, justify="right")
        bar.add_row(
            ProgressBar(total=budget, completed=min(elapsed, budget)),
            f"{say_seconds(elapsed)} of {say_seconds(budget)}, {say_seconds(self.ledger.remaining_seconds)} left",
        )
        lines: list[RenderableType] = [bar, draw_text(self.stage, "bold")]
        if phrases := self.numbers.describe():
            lines.append(Text("   ".join(phrases), no_wrap=True, overflow="ellipsis"))
        if self.numbers.sample:
            lines.append(self._draw_sample(self.numbers.sample))
        return Panel(Group(*lines), title="lightlm", title_align="left", border_style="dim")

    def _draw_sample(self, sample: Sampled) -> Text:
        width = max(20, self.console.width - 6) * SAMPLE_LINES
        words = " ".join(f"{sample.prompt}{sample.text}".split())
        return draw_text(words if len(words) <= width else f"{words[: width - 3]}...", "italic dim")

    def _print(self, kind: str, message: str) -> None:
        if self.is_quiet:
            return
        line = Text(f"{self.ledger.elapsed_seconds:7.1f} s  {kind:<{KIND_COLUMNS}}", style="dim")
        line.append_text(draw_text(message))
        try:
            self.console.print(line, soft_wrap=True)
        except OSError:
            # A full disk behind `2>`: the run goes on unseen. (A closed pipe ends in PatientConsole.)
            self.is_quiet = True
