"""The terminal: where to draw, whether it moves, and which marks it can show.

Owns the consoles. rich itself honours NO_COLOR and the width of a window.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, TextIO

from rich.console import Console
from rich.text import Text

from lightlm.console.escape import escape_for_terminal

PIPE_WIDTH = 120
"""Columns where nobody says how wide: a file or a log viewer; rich's own 80 breaks the plan's lines."""


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
    """Return whether lines can be drawn over: a real terminal, whatever FORCE_COLOR says."""
    return console.file.isatty() and not console.is_dumb_terminal


@contextmanager
def without_control_echo() -> Iterator[None]:
    """Keep the terminal from writing ^C where the cursor is: at the end of a panel that scrolls its frame away."""
    try:
        import termios
    except ImportError:  # Windows echoes none
        yield
        return
    try:
        handle = sys.stdin.fileno()
        former = termios.tcgetattr(handle)
        if os.tcgetpgrp(handle) != os.getpgrp():  # a job in the background is halted where it touches its terminal
            raise OSError
    except (termios.error, ValueError, OSError):
        yield
        return
    changed = [*former]
    changed[3] &= ~termios.ECHOCTL
    termios.tcsetattr(handle, termios.TCSANOW, changed)
    try:
        yield
    finally:
        with suppress(termios.error):
            termios.tcsetattr(handle, termios.TCSANOW, former)


def choose_marks(console: Console) -> Marks:
    """Return signs that the console's encoding can show."""
    if can_show_blocks(console):
        return Marks("✓", "!", "✗", "▸")
    return Marks("ok", "!", "x", ">")


def can_show_blocks(console: Console) -> bool:
    """Return whether the console's encoding has the blocks of a sparkline."""
    return console.encoding.lower().startswith("utf")


def draw_text(text: str, style: str = "") -> Text:
    """Return untrusted text, escaped, for any place that rich draws."""
    return Text(escape_for_terminal(text), style=style)
