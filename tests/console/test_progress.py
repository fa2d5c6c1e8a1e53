"""Progress: lines in a pipe, a panel on a terminal, nothing when quiet; never an error."""

import io
import os
import pty
import threading

import pytest

from lightlm.budget.ledger import Ledger
from lightlm.console.progress import Progress, TrainingNumbers
from lightlm.console.terminal import open_console
from lightlm.training.events import (
    Checkpointed,
    Sampled,
    StepDone,
    StepSkipped,
    Validated,
    WorkerRestarted,
)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def step_done(step: int, loss: float = 4.0, progress: float = 0.5) -> StepDone:
    """Return a step of 1,000 tokens in half a second."""
    return StepDone(step, progress, loss, 1.0, 0.5, 1000, 1000 * step, 0.5, 0.0)


def open_progress(clock: Clock, stream: io.StringIO, *, quiet: bool = False) -> Progress:
    """Return the progress of a 72-second run, written into `stream`."""
    ledger = Ledger(0.02, started_at=0.0, clock=clock)
    return Progress(ledger, console=open_console(stream), quiet=quiet)


def test_a_pipe_gets_a_line_a_stage_and_a_line_every_few_seconds() -> None:
    clock = Clock()
    stream = io.StringIO()
    with open_progress(clock, stream) as progress:
        progress.enter_stage("tokenizer")
        progress.enter_stage("training")
        for step in range(1, 101):
            clock.now = step * 0.1
            progress.show(step_done(step))

    lines = stream.getvalue().splitlines()
    assert [line.split()[2:] for line in lines[:2]] == [
        ["stage", "tokenizer"],
        ["stage", "training"],
    ]
    trained = [line for line in lines if " train " in line]
    assert len(trained) == 2
    assert "step 51, loss 4.000, 2,000 tokens/s, 51,000 tokens" in trained[1]


def test_nothing_in_a_pipe_is_an_escape_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    stream = io.StringIO()
    with open_progress(Clock(), stream) as progress:
        progress.show(Sampled(1, 0.1, "The", " end\x1b[2J\x07 [bold]of[/bold] it"))
    assert "The end\\x1b[2J\\x07 [bold]of[/bold] it" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_scores_and_skipped_steps_are_said_at_once() -> None:
    stream = io.StringIO()
    with open_progress(Clock(), stream) as progress:
        progress.show(Validated(7, 0.2, 2.345678, 0.1))
        progress.show(StepSkipped(8, 0.2, float("nan"), float("inf")))
        progress.show(Checkpointed(9, 0.3, "anywhere", 0.1))
        progress.show(WorkerRestarted(3, 0.3, "killed by signal 9", 1))
        progress.log("the Hub is out of reach")

    said = stream.getvalue()
    assert "step 7: 2.346 bits per byte" in said
    assert "step 8 skipped" in said
    assert "died (killed by signal 9); training resumes at step 3" in said
    assert "checkpoint of step 9" in said
    assert "the Hub is out of reach" in said


def test_quiet_says_nothing() -> None:
    stream = io.StringIO()
    with open_progress(Clock(), stream, quiet=True) as progress:
        progress.enter_stage("training")
        progress.show(step_done(1))
        progress.log("anything")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left on device")])
def test_a_reader_who_went_away_does_not_stop_the_run(error: OSError) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise error

    with open_progress(Clock(), Closed()) as progress:
        progress.log("one")
        progress.log("two")
        progress.show(step_done(1))
    assert progress.numbers.step == 1


def test_the_panel_shows_time_left_stage_numbers_and_the_sample_escaped() -> None:
    clock = Clock()
    stream = io.StringIO()
    progress = open_progress(clock, stream)
    progress.enter_stage("subset")
    progress.enter_stage("training")
    clock.now = 24.0

    for event in (
        step_done(3, loss=5.25),
        Validated(3, 0.3, 2.5, 0.1),
        Sampled(3, 0.3, "Sea", "\x1b]0;x"),
    ):
        progress.show(event)

    console = open_console(io.StringIO())
    console.print(progress.render())
    shown = console.file.getvalue()  # type: ignore[attr-defined]

    for words in (
        "24 s of 72 s, 48 s left",
        "training",
        "step 3",
        "loss 5.250",
        "2.500 bits per byte",
    ):
        assert words in shown

    assert "2,000 tokens/s" in shown
    assert "Sea\\x1b]0;x" in shown


def test_a_terminal_gets_a_panel_that_is_taken_away_and_lines_that_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    leader, follower = pty.openpty()
    received = bytearray()

    def read() -> None:
        try:
            while content := os.read(leader, 65_536):
                received.extend(content)
        except OSError:
            pass  # Linux answers so when the other end is closed

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(follower, "w", encoding="utf-8") as stream:
        ledger = Ledger(0.02, started_at=0.0, clock=Clock())
        with Progress(ledger, console=open_console(stream)) as progress:
            progress.enter_stage("training")
            progress.show(step_done(1))
            progress.log("a note that stays")

    reader.join(60)
    os.close(leader)
    shown = received.decode()
    assert "a note that stays" in shown
    assert "lightlm" in shown
    assert "72 s left" in shown
    assert "\x1b[31m" not in shown
    assert shown.rstrip().endswith(("\x1b[2K", "\x1b[?25h", "\x1b[1A\x1b[2K")), (
        "the panel is erased"
    )


def test_a_question_at_the_panels_place_leaves_what_stands_above_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    leader, follower = pty.openpty()
    received = bytearray()

    def read() -> None:
        has_answered = False
        try:
            while content := os.read(leader, 65_536):
                received.extend(content)
                if b"(y/n)" in received and not has_answered:
                    has_answered = True
                    os.write(leader, b"n\n")
        except OSError:
            pass  # Linux answers so when the other end is closed

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(os.dup(follower)) as typed, os.fdopen(follower, "w", encoding="utf-8") as stream:
        monkeypatch.setattr("sys.stdin", typed)
        ledger = Ledger(0.02, started_at=0.0, clock=Clock())
        with Progress(ledger, console=open_console(stream)) as progress:
            progress.enter_stage("training")
            assert not progress.confirm_stop()

    reader.join(60)
    os.close(leader)
    after = received.decode().partition("(y/n)")[2]
    # Up to the next panel's frame nothing moves up: that would wipe the question, and the plan
    # above it.
    assert "\x1b[1A" not in after.partition("lightlm")[0]


def test_the_loss_shown_is_the_mean_of_the_last_steps() -> None:
    numbers = TrainingNumbers()
    assert numbers.loss is None
    assert numbers.tokens_per_second is None
    assert numbers.describe() == []
    for step in range(1, 41):
        numbers.take(step_done(step, loss=9.0 if step <= 20 else float(step % 2)))
    assert numbers.loss == pytest.approx(0.5)
    assert numbers.tokens_per_second == pytest.approx(2000)
