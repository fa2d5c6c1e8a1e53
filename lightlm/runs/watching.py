"""A run that another process makes, followed by what it writes into its folder: its record and its
ledger.

Reads and nothing else: it takes no lock, so it can neither hold up the run nor keep it from being
continued.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from lightlm.budget.plan import Plan
from lightlm.console.progress import Progress
from lightlm.quantities import format_seconds
from lightlm.runs.finished import read_summary
from lightlm.runs.folder import LEDGER, find_run
from lightlm.runs.stage_names import STAGES
from lightlm.store.journal import read_journal
from lightlm.tracking.record import JOURNAL as RECORD
from lightlm.tracking.record import (
    PLAN,
    AnyRecord,
    Finish,
    Metrics,
    Params,
    Start,
    Text,
    read_records,
)
from lightlm.training.events import Event, Sampled, StepDone, Validated

POLL_SECONDS = 0.25

SILENT_SECONDS = 15.0
"""A living run writes its ledger twice a second; after this long without, its process is gone or
halted.
"""

REGISTRATION_SECONDS = 30.0
"""Seconds that a run may take from the record of its end to its summary: it is registered there."""


class FollowedClock:
    """A run's budget as its ledger tells it: between two of its records the time goes on here.
    Seconds.
    """

    def __init__(self) -> None:
        self.budget_seconds = 0.0
        self.is_running = False
        self._known, self._known_at = 0.0, time.monotonic()

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since the run's start."""
        return self._known + (time.monotonic() - self._known_at if self.is_running else 0.0)

    @property
    def remaining_seconds(self) -> float:
        """Seconds until its deadline."""
        return self.budget_seconds - self.elapsed_seconds

    def set(self, elapsed_seconds: float) -> None:
        """Know how much the run has spent."""
        self._known, self._known_at = elapsed_seconds, time.monotonic()


class FollowedRun:
    """One run's folder, turned into what the progress panel shows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = FollowedClock()
        self.status: str | None = None
        self.name = folder.name
        self._record_end = 0
        self._ledger_end = 0
        self._entries: dict[str, float] = {}
        self._plan: Plan | None = None
        self._progress = 0.0
        self._heard_at = time.monotonic()

    @property
    def is_silent(self) -> bool:
        """Whether nothing was heard of its process for too long."""
        return time.monotonic() - self._heard_at > SILENT_SECONDS

    @property
    def entries(self) -> dict[str, float]:
        """The seconds of each stage so far, by its name in the ledger."""
        return dict(self._entries)

    def look(self, display: Progress) -> None:
        """Take in what was written since the last look, and show it."""
        for record, end in read_records(self.folder, self._record_end):
            self._record_end = end
            self._heard_at = time.monotonic()
            self._take(record, display)

        spent = list(read_journal(self.folder / LEDGER, self._ledger_end))
        if spent:
            newest, self._ledger_end = spent[-1]
            self._heard_at = time.monotonic()
            self.clock.set(float(newest.get("seconds", 0.0)))
            self.clock.is_running = self.status is None
            self._enter_stage(newest.get("entries", {}), display)

    def _take(self, record: AnyRecord, display: Progress) -> None:
        match record:
            case Start():
                self.name = record.name
                self.status = None
                self.clock.budget_seconds = (record.hours or 0.0) * 3600
            case Params():
                hours = record.hours
                self.clock.budget_seconds = hours * 3600 if hours else self.clock.budget_seconds
            case Text() if record.path == PLAN:
                self._take_plan(record.content, display)
            case Text() if record.sample_step is not None:
                sample = Sampled(record.sample_step, self._progress, "", record.content)
                display.show(sample)
            case Metrics(values=values):
                if "budget/elapsed_seconds" in values:
                    self.clock.is_running = False
                    self.clock.set(values["budget/elapsed_seconds"])
                for event in self._events(record.step, values):
                    display.show(event)
                if "evaluation/bits_per_byte" in values:
                    bits = values["evaluation/bits_per_byte"]
                    display.log(f"{bits:.4f} bits per byte on the held-out text")
            case Finish():
                self.status = record.status
            case _:
                pass

    def _take_plan(self, content: str, display: Progress) -> None:
        try:
            self._plan = Plan.model_validate_json(content)
        except ValidationError:  # of another version: the numbers are shown without a forecast
            return
        display.follow(self._plan)
        display.log(
            f"Plan: {self._plan.summary()}; {self._plan.predicted_bits_per_byte:.3f} bits per byte "
            f"predicted ({self._plan.predicted_low:.3f} to {self._plan.predicted_high:.3f})"
        )

    def _events(self, step: int, values: dict[str, float]) -> Iterator[Event]:
        if "train/loss" in values:
            self._progress = values.get("budget/progress", self._progress)
            speed = max(values.get("throughput/tokens_per_second", 0.0), 1e-9)
            batch = self._plan.trainer.batch_tokens if self._plan else 1
            seconds = batch / speed
            yield StepDone(
                step=step,
                progress=self._progress,
                loss=values["train/loss"],
                learning_rate_factor=values.get("train/learning_rate_factor", 0.0),
                gradient_norm=values.get("train/gradient_norm", 0.0),
                batch_tokens=batch,
                total_tokens=int(values.get("train/tokens", 0)),
                seconds=seconds,
                waited_seconds=seconds * values.get("throughput/waited_fraction", 0.0),
            )

        if "validation/bits_per_byte" in values:
            yield Validated(step, self._progress, values["validation/bits_per_byte"], 0.0)

    def _enter_stage(self, entries: dict[str, float], display: Progress) -> None:
        """Name the stage whose seconds have grown since the last look."""
        grown = [
            name
            for name in entries
            if entries[name] > self._entries.get(name, 0.0) and name in STAGES
        ]
        self._entries = dict(entries)
        if not grown:
            return

        stage = STAGES[grown[-1]]
        if grown[-1] == "training" and self._plan is not None:
            stage = f"{stage} {self._plan.summary()}"
        if stage != display.stage:
            display.enter_stage(stage)


def watch_run(home: Path, run: str | None, *, is_quiet: bool = False) -> str:
    """Follow a run until it ends; return how: FINISHED, FAILED, KILLED, or SILENT where its process
    is gone.

    Raises:
        InputError: there is no such run.
    """
    followed = FollowedRun(find_run(home, run, lambda folder: (folder / RECORD).is_file()))
    with Progress(followed.clock, quiet=is_quiet, is_here=False) as display:
        display.log(f"Watching {followed.folder}")
        while True:
            followed.look(display)
            if followed.status is not None or followed.is_silent:
                break
            time.sleep(POLL_SECONDS)
        if followed.status == "FINISHED":
            wait_for_summary(followed, display)
        display.log(format_end(followed))
    return followed.status or "SILENT"


def wait_for_summary(run: FollowedRun, display: Progress) -> None:
    """Follow a run whose training is recorded as finished until its model is registered, and log
    the version that it got.
    """
    deadline = time.monotonic() + REGISTRATION_SECONDS
    while (summary := read_summary(run.folder)) is None:
        if run.is_silent or time.monotonic() > deadline:
            return
        time.sleep(POLL_SECONDS)
        run.look(display)

    run.clock.is_running = False
    run.clock.set(summary.elapsed_seconds)
    version = f"version {summary.model_version}: " if summary.model_version else ""
    display.log(f"{summary.model_name} {version}{summary.promotion}")


def format_end(run: FollowedRun) -> str:
    """Return how a run ended, in a sentence."""
    used = (
        f"{format_seconds(run.clock.elapsed_seconds)} of {format_seconds(run.clock.budget_seconds)}"
    )
    if run.status is None:
        return (
            f"{run.name}: nothing heard for {SILENT_SECONDS:.0f} s; its process is gone or "
            f"halted ({used} used)"
        )

    endings = {
        "FINISHED": "finished",
        "FAILED": "failed",
        "KILLED": "was stopped; the same command resumes it",
    }

    return f"{run.name}: {endings.get(run.status, run.status.lower())} ({used} used)"
