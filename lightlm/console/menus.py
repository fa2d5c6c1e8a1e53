"""Menus and questions at a terminal: by number, by arrow keys, or by lines from a pipe.

Without an answer (Esc, Ctrl-C, Ctrl-D, the end of a pipe) each method returns None: leaving a
prompt is no error. Answers are stripped.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from lightlm.console.escape import escape_for_terminal
from lightlm.console.lines import Describe, LineReader, StreamReader
from lightlm.console.terminal import choose_marks, is_live, open_console, render_text
from lightlm.errors import InputError, LightLMError

YES = ("y", "yes")
NO = ("n", "no")

Read = Callable[[str], Any]
"""Turns what was typed into a value.

Raises:
    LightLMError: it cannot; the message is shown and the question asked again.
"""


class Dialogue:
    """Asks a person, for a whole session: keys on a terminal, lines anywhere else."""

    def __init__(self, console: Console | None = None, reader: LineReader | None = None) -> None:
        self.console = console or open_console()
        self.reader = reader or open_reader(self.console)

    def choose(self, title: str, entries: Sequence[str], default: int = 1) -> int | None:
        """Return the number of an entry, counted from 1; None where the person leaves."""
        mark = choose_marks(self.console).chosen
        self.log(title, "bold")
        lines = [
            f"{mark if number == default else ' '} {number}. {e}"
            for number, e in enumerate(entries, start=1)
        ]

        question = f"Choose 1-{len(entries)} [{default}]: "
        while True:
            typed = self.reader.read_choice(lines, question, len(entries))
            if typed is None:
                return None
            number = read_number(typed, default, len(entries))
            if number is not None:
                return number
            how = "type a number or use the arrows" if has_keys(self.console) else "type a number"
            self.warn(f"{escape_for_terminal(typed)!r} is none of 1 to {len(entries)}; {how}")
            lines = []

    def ask(
        self,
        question: str,
        read: Read = str,
        *,
        default: str | None = None,
        describe: Describe | None = None,
        is_path: bool = False,
    ) -> Any:
        """Return what `read` makes of the answer, or of `default` for an empty line; None where the
        person leaves.
        """
        shown = question if default is None else f"{question.rstrip().rstrip(':')} [{default}]: "
        while True:
            typed = self.reader.read(shown, describe, is_path=is_path)
            if typed is None:
                return None
            typed = typed or default or ""
            if not typed:
                self.warn(
                    "an answer is needed" + ("; Esc goes back" if has_keys(self.console) else "")
                )
                continue
            try:
                return read(typed)
            except LightLMError as error:
                self.warn(str(error))

    def confirm(self, question: str) -> bool | None:
        """Return whether the answer is yes; None where the person leaves."""
        return self.ask(question, read_yes)

    def log(self, message: str = "", style: str = "") -> None:
        """Print a line."""
        self.console.print(render_text(message, style), soft_wrap=True)

    def show(self, renderable: Any) -> None:
        """Print a rich renderable."""
        self.console.print(renderable)

    def warn(self, message: str) -> None:
        """Print a warning."""
        self.console.print(
            Text(f"{choose_marks(self.console).warned} ", "yellow") + render_text(message)
        )


def read_number(typed: str, default: int, most: int) -> int | None:
    """Return the number of an entry, `default` for an empty line; None where it is none of 1 to
    `most`.
    """
    if not typed:
        return default
    typed = typed.rstrip(".)")
    return (
        int(typed)
        if typed.isascii() and typed.isdigit() and len(typed) < 4 and 1 <= int(typed) <= most
        else None
    )


def read_yes(typed: str) -> bool:
    """Return whether `typed` is a yes.

    Raises:
        InputError: it is neither yes nor no.
    """
    word = typed.lower()
    if word in YES + NO:
        return word in YES
    raise InputError(f"wanted y or n, got {typed!r}")


def has_keys(console: Console) -> bool:
    """Return whether a person with a keyboard is there, and a cursor that moves."""
    return sys.stdin.isatty() and is_live(console)


def open_reader(console: Console) -> LineReader:
    """Return the reader that suits standard input and the console."""
    if not has_keys(console):
        return StreamReader(sys.stdin, console)
    # Asking the terminal where its cursor is gains nothing here, and some never answer.
    os.environ.setdefault("PROMPT_TOOLKIT_NO_CPR", "1")
    from lightlm.console.keys import KeyReader

    return KeyReader(console)
