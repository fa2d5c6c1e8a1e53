"""The console draws what its stream can show."""

import io
import os
import pty

from rich.text import Text

from lightlm.console.terminal import (
    PIPE_WIDTH,
    Hanging,
    choose_marks,
    is_live,
    open_console,
    render_text,
)


def test_a_pipe_is_wide_and_not_drawn_over_even_when_colour_is_forced(monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = open_console(io.StringIO())
    assert console.width == PIPE_WIDTH
    assert not is_live(console)


def test_a_terminal_is_drawn_over_unless_it_is_dumb(monkeypatch) -> None:
    leader, follower = pty.openpty()
    with os.fdopen(leader, "rb"), os.fdopen(follower, "w", encoding="utf-8") as stream:
        monkeypatch.setenv("TERM", "xterm")
        assert is_live(open_console(stream))
        monkeypatch.setenv("TERM", "dumb")
        assert not is_live(open_console(stream))


def test_marks_are_letters_where_the_encoding_has_no_signs() -> None:
    ascii_stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    marks = choose_marks(open_console(ascii_stream))
    assert "".join(marks).isascii()
    utf8_stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert choose_marks(open_console(utf8_stream)).passed == "✓"


def test_brackets_are_data_and_not_markup() -> None:
    stream = io.StringIO()
    open_console(stream).print("[red]x[/red] :smile:")
    assert stream.getvalue() == "[red]x[/red] :smile:\n"


def test_a_hanging_text_goes_on_below_its_beginning_and_ends_in_no_blanks() -> None:
    stream = io.StringIO()
    console = open_console(stream)
    console.width = 16
    console.print(Hanging(Text("  - "), render_text("one two three four \x1b[2J")))
    assert stream.getvalue() == "  - one two\n    three four\n    \\x1b[2J\n"
