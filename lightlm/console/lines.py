"""Readers of lines: what a person types at a prompt, from a terminal with keys or from a pipe."""

from collections.abc import Callable, Sequence
from typing import Protocol, TextIO

from rich.console import Console

from lightlm.console.terminal import render_text

Describe = Callable[[str], str]
"""Returns a line on what an answer would mean, while it is typed; "" where it means nothing yet."""


class LineReader(Protocol):
    """Reads lines from a terminal with keys, or from a stream."""

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
