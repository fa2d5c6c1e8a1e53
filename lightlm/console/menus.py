"""Menus and questions at a terminal: by number, by arrow keys, or by lines from a pipe; every one
can be left.

Owns how a person is asked; not what is done with the answer. Without an answer (Esc, Ctrl-C,
Ctrl-D, the end of a pipe) each method returns None: leaving a prompt is no error. What a person
typed is returned stripped.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.text import Text

from lightlm.console.escape import escape_for_terminal
from lightlm.console.terminal import choose_marks, is_live, open_console, render_text
from lightlm.errors import InputError, LightLMError

ESCAPE_SECONDS = 0.05
"""After Esc, for the rest of an arrow key's bytes to arrive; prompt_toolkit's half a second feels
stuck.
"""

YES = ("y", "yes")
NO = ("n", "no")

Read = Callable[[str], Any]
"""Turns what was typed into a value.

Raises:
    LightLMError: it cannot; the message is shown and the question asked again.
"""


Describe = Callable[[str], str]
"""Says in a line what an answer would mean, while it is typed; "" where it means nothing yet."""


class LineReader(Protocol):
    """Where lines come from: a terminal with keys, or a stream of lines."""

    def read(
        self, question: str, describe: Describe | None = None, *, is_path: bool = False
    ) -> str | None:
        """Return the next line without its end; None where the person left. `describe` is shown
        while they type.

        With `is_path` the Tab key completes names of files.
        """
        ...

    def read_choice(self, lines: Sequence[str], question: str, num_entries: int) -> str | None:
        """Return what was typed below the entries `lines`; arrow keys write an entry's number."""
        ...


class StreamReader:
    """Lines of a pipe, a file or a terminal without cursor; the questions go to the console."""

    def __init__(self, stream: TextIO, console: Console) -> None:
        self.stream = stream
        self.console = console

    def read(
        self, question: str, describe: Describe | None = None, *, is_path: bool = False
    ) -> str | None:
        """Return the next line; None at the end."""
        self.console.print(render_text(question), end="", soft_wrap=True)
        try:
            line = self.stream.readline()
        except (KeyboardInterrupt, UnicodeDecodeError):
            line = ""
        if not self.stream.isatty():
            # A pipe echoes nothing: the record then shows what was answered.
            self.console.print(render_text(line.rstrip("\n")), soft_wrap=True)
        return line.strip() if line else None

    def read_choice(self, lines: Sequence[str], question: str, num_entries: int) -> str | None:
        """Show the entries, then read."""
        for line in lines:
            self.console.print(render_text(line), soft_wrap=True)
        return self.read(question)


class Dialogue:
    """Asks a person; one for a whole session. Keys on a terminal, lines anywhere else."""

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
        """Return what `read` makes of the answer, of `default` where it is empty; None where the
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
        """Print what rich draws."""
        self.console.print(renderable)

    def warn(self, message: str) -> None:
        """Print what was wrong and what to do."""
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
    """Return whether `typed` says yes.

    Raises:
        InputError: it says neither yes nor no.
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
