"""Untrusted text cannot steer a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightlm.console.escape import escape_for_terminal

ALLOWED_CONTROLS = {"\n", "\t"}
DIRECTIONS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@given(st.text(st.characters(codec=None), max_size=200))
def test_no_control_character_survives(text: str) -> None:
    shown = escape_for_terminal(text)
    for character in shown:
        code = ord(character)
        assert character in ALLOWED_CONTROLS or not (code < 32 or 127 <= code < 160)
        assert character not in DIRECTIONS
    shown.encode("utf-8")


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=200))
def test_text_without_controls_stays_as_it_is(text: str) -> None:
    assert escape_for_terminal(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07"),
        ("a\rb", "a\\x0db"),
        ("\x9b2J", "\\x9b2J"),
        ("abc\u202edef", "abc\\u202edef"),
        ("line\n\ttab", "line\n\ttab"),
        ("\ud800", "\\ud800"),
        ("Zoë 東京 🙂", "Zoë 東京 🙂"),
    ],
)
def test_dangerous_characters_become_visible(text: str, shown: str) -> None:
    assert escape_for_terminal(text) == shown
