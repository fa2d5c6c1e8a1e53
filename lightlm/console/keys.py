"""Keys at a prompt, by prompt_toolkit: arrows move in a menu or in history, Esc leaves."""

import textwrap
from collections.abc import Sequence
from typing import TextIO, cast

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import Completer, PathCompleter
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import create_output
from prompt_toolkit.shortcuts import CompleteStyle
from rich.console import Console

from lightlm.console.escape import escape_for_terminal
from lightlm.console.lines import Describe
from lightlm.console.terminal import choose_marks

ESCAPE_SECONDS = 0.05
"""Seconds after Esc for the rest of an arrow key's bytes; prompt_toolkit's 0.5 s feel stuck."""


class KeyReader:
    """A `LineReader` for a terminal. What is typed ahead is kept for the next question."""

    def __init__(self, console: Console, history: History | None = None) -> None:
        self.console = console
        self.history = history
        self._mark = choose_marks(console).chosen
        self._output = create_output(stdout=cast(TextIO, console.file))

    def read(
        self, question: str, describe: Describe | None = None, *, is_path: bool = False
    ) -> str | None:
        """Return the line; None after Esc, Ctrl-C or Ctrl-D. With `is_path` Tab completes names of
        files.
        """
        session = self._open(
            KeyBindings(), self.history, PathCompleter(expanduser=True) if is_path else None
        )
        width = max(20, self.console.width - 1)

        def render() -> StyleAndTextTuples:
            drawn: StyleAndTextTuples = [("", escape_for_terminal(question))]
            if describe is None:
                return drawn
            described = textwrap.fill(
                escape_for_terminal(describe(session.default_buffer.text.strip())), width
            )
            return [("ansicyan", f"{described}\n"), *drawn] if described else drawn

        return self._ask(session, render)

    def read_choice(self, lines: Sequence[str], question: str, num_entries: int) -> str | None:
        """Return the number that was typed, or that the arrows went to."""
        keys = KeyBindings()
        menu = Menu(lines, question, num_entries, self._mark)
        session = self._open(keys, InMemoryHistory())
        menu.session = session
        is_menu = Condition(lambda: bool(lines))
        keys.add("up", filter=is_menu, eager=True)(lambda event: menu.move(event, -1))
        keys.add("down", filter=is_menu, eager=True)(lambda event: menu.move(event, 1))
        return self._ask(session, menu.render)

    def _open(
        self, keys: KeyBindings, history: History | None, completer: Completer | None = None
    ) -> "PromptSession[str]":
        # Not eager: an arrow key begins with Esc, too.
        keys.add("escape")(lambda event: event.app.exit(exception=EOFError))
        session: PromptSession[str] = PromptSession(
            key_bindings=keys,
            history=history,
            output=self._output,
            completer=completer,
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
        )
        session.app.ttimeoutlen = session.app.timeoutlen = ESCAPE_SECONDS
        return session

    def _ask(self, session: "PromptSession[str]", message: object) -> str | None:
        try:
            return session.prompt(message).strip()  # pyright: ignore[reportArgumentType]
        except (EOFError, KeyboardInterrupt):
            return None


class Menu:
    """The lines of a menu, one of them marked: the one whose number is typed."""

    def __init__(self, lines: Sequence[str], question: str, num_entries: int, mark: str) -> None:
        self.lines = lines
        self.question = question
        self.num_entries = num_entries
        self.mark = mark
        self.session: PromptSession[str] | None = None
        self.default = next(
            (i for i, line in enumerate(lines, start=1) if line.startswith(mark)), 1
        )

    @property
    def current(self) -> int:
        """The number of the marked entry; 0 where what is typed is none."""
        typed = self.session.default_buffer.text.strip() if self.session else ""
        if not typed:
            return self.default
        return int(typed) if typed.isascii() and typed.isdigit() and len(typed) < 4 else 0

    def move(self, event: KeyPressEvent, by: int) -> None:
        """Go to the next entry or the one before, around the ends."""
        number = (self.current + by - 1) % self.num_entries + 1
        event.current_buffer.text = str(number)
        event.current_buffer.cursor_position = len(str(number))

    def render(self) -> StyleAndTextTuples:
        """Return the entries with the mark where it is now, then the question."""
        drawn: StyleAndTextTuples = []
        for number, line in enumerate(self.lines, start=1):
            is_current = number == self.current
            text = escape_for_terminal(line[1:])
            drawn.append(
                ("bold" if is_current else "", f"{self.mark if is_current else ' '}{text}\n")
            )
        return [*drawn, ("", escape_for_terminal(self.question))]
