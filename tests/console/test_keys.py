"""Keys at a real terminal of 80 x 24: arrows, numbers, and the three keys that leave."""

import os
import re
import sys

import pytest

pexpect = pytest.importorskip("pexpect")

MENU = """
from lightlm.console.menus import Dialogue
print("picked", Dialogue().choose("Menu", ("first", "second", "third"), default=1))
"""
QUESTION = """
from lightlm.console.menus import Dialogue
print("heard", Dialogue().ask("Layers", int, default="12", describe=lambda typed: f"means {typed or '12'} layers"))
"""
UP = "\x1b[A"
DOWN = "\x1b[B"


def open_terminal(script: str, **environment: str) -> "pexpect.spawn[str]":
    """Return Python running `script` at a terminal."""
    return pexpect.spawn(
        sys.executable,
        ["-c", script],
        env=os.environ | {"TERM": "xterm-256color"} | environment,
        encoding="utf-8",
        dimensions=(24, 80),
        timeout=60,
    )


@pytest.mark.parametrize(
    ("keys", "picked"),
    [
        ("2\r", "2"),
        ("\r", "1"),
        (f"{DOWN}{DOWN}\r", "3"),
        (f"{UP}\r", "3"),
        (f"{DOWN}{UP}\r", "1"),
        ("\x1b", "None"),
        ("\x03", "None"),
        ("\x04", "None"),
    ],
    ids=["number", "enter", "down", "up", "back", "Esc", "Ctrl-C", "Ctrl-D"],
)
def test_a_menu_is_answered_by_numbers_and_by_arrows_and_can_be_left(
    keys: str, picked: str
) -> None:
    terminal = open_terminal(MENU)
    terminal.expect(r"Choose 1-3 \[1\]:")
    terminal.send(keys)
    terminal.expect(f"picked {picked}")
    terminal.expect(pexpect.EOF)
    assert "Traceback" not in terminal.before
    assert terminal.wait() == 0


def test_what_an_answer_means_is_shown_while_it_is_typed() -> None:
    terminal = open_terminal(QUESTION)
    terminal.expect("means 12 layers")
    terminal.send("7")
    terminal.expect("7 .*layers")  # only what changed is drawn
    terminal.send("\r")
    terminal.expect("heard 7")


def test_without_colour_no_colour_is_sent() -> None:
    terminal = open_terminal(QUESTION, NO_COLOR="1")
    terminal.expect("means 12 layers")
    shown = terminal.before
    terminal.sendline("1")
    terminal.expect("heard 1")
    assert not re.search(r"\x1b\[(\d+;)*(3|4|9|10)\d(;\d+)*m", shown + terminal.before)


def test_a_terminal_without_a_cursor_reads_lines() -> None:
    terminal = open_terminal(MENU, TERM="dumb")
    terminal.expect("Choose")
    terminal.sendline("3")
    terminal.expect("picked 3")
    assert "\x1b" not in terminal.before
