"""The terminal: consoles, whether they are live, and the marks that they can show."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from lightlm.console.escape import escape_for_terminal

PIPE_WIDTH = 120
"""Columns of a file or a log viewer; rich's own 80 breaks the plan's lines."""


class Marks(NamedTuple):
    """The signs in front of lines."""

    passed: str
    warned: str
    failed: str
    chosen: str


class PatientConsole(Console):
    """A console whose reader may go away: it falls silent, where rich's own ends the process."""

    def on_broken_pipe(self) -> None:
        """Fall silent. The model is still to be made, and standard output is not ours to close."""
        self.quiet = True


def open_console(stream: TextIO | None = None) -> Console:
    """Return a console on `stream` (standard error by default)."""
    file: TextIO = sys.stderr if stream is None else stream
    # No markup, emoji or highlighting: what is printed here is data, and may hold brackets.
    return PatientConsole(
        file=file,
        width=None if file.isatty() else PIPE_WIDTH,
        markup=False,
        emoji=False,
        highlight=False,
    )


def is_live(console: Console) -> bool:
    """Return whether lines can be drawn over: a real terminal, regardless of FORCE_COLOR."""
    return console.file.isatty() and not console.is_dumb_terminal


_RESTORES: list[Callable[[], None]] = []
"""Functions that turn the terminal's echo on again, while it is off."""


@contextmanager
def without_echo() -> Iterator[None]:
    """Keep the terminal from writing what is typed where the cursor is: below a panel, which then
    leaves its frame.

    What is typed meanwhile is kept for whoever reads next.
    """
    try:
        import termios
    except ImportError:  # Windows echoes none
        yield
        return

    try:
        handle = sys.stdin.fileno()
        former = termios.tcgetattr(handle)
        # a job in the background is halted where it touches its terminal
        if os.tcgetpgrp(handle) != os.getpgrp():
            raise OSError
    except (termios.error, ValueError, OSError):
        yield
        return

    changed = [*former]
    changed[3] &= ~termios.ECHO

    def restore() -> None:
        with suppress(termios.error):
            termios.tcsetattr(handle, termios.TCSANOW, former)

    termios.tcsetattr(handle, termios.TCSANOW, changed)
    _RESTORES.append(restore)
    try:
        yield
    finally:
        _RESTORES.remove(restore)
        restore()


def restore_echo() -> None:
    """Give the terminal its echo back; for a process that ends without leaving `without_echo`."""
    for restore in reversed(_RESTORES):
        restore()


def forget_typed() -> None:
    """Drop what was typed before a question stood there: it is no answer."""
    try:
        import termios
    except ImportError:  # Windows
        return
    with suppress(termios.error, ValueError, OSError):
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)


def choose_marks(console: Console) -> Marks:
    """Return signs that the console's encoding can show."""
    if can_show_blocks(console):
        return Marks("✓", "!", "✗", "▸")
    return Marks("ok", "!", "x", ">")


def can_show_blocks(console: Console) -> bool:
    """Return whether the console's encoding has the blocks of a sparkline."""
    return console.encoding.lower().startswith("utf")


class Hanging(NamedTuple):
    """A text that breaks at words and goes on below its beginning, right of a mark; no line ends in
    blanks.
    """

    mark: Text
    text: Text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        mark = self.mark
        for line in self.text.wrap(console, max(1, options.max_width - mark.cell_len)):
            line.rstrip()
            yield mark + line
            mark = Text(" " * mark.cell_len)


def render_text(text: str, style: str = "") -> Text:
    """Return untrusted text, escaped, for any place that rich draws."""
    return Text(escape_for_terminal(text), style=style)
