"""Texts side by side: a column each, escaped."""

import io

from lightlm.console.side_by_side import render_side_by_side
from lightlm.console.terminal import open_console


def test_each_text_has_a_column_of_its_own_and_is_escaped() -> None:
    console = open_console(io.StringIO())
    console.print(
        render_side_by_side({"version 2": "one [bold]text", "version 3": "another\x1b[2J"})
    )
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "version 2" in shown.splitlines()[1]
    assert "version 3" in shown.splitlines()[1]
    assert "one [bold]text" in shown
    assert "another\\x1b[2J" in shown
    assert "\x1b" not in shown
