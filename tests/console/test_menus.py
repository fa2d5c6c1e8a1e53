"""Menus and questions in a pipe: every line is an answer, its end is a way out, and nothing moves
the cursor.
"""

import io

import pytest

from lightlm.console.lines import StreamReader
from lightlm.console.menus import Dialogue, read_number, read_yes
from lightlm.console.terminal import open_console
from lightlm.errors import InputError, ParameterError

ENTRIES = ("Start training", "Manage", "Exit")


def open_dialogue(typed: str) -> tuple[Dialogue, io.StringIO]:
    """Return a dialogue that reads `typed`, and what it writes to."""
    shown = io.StringIO()
    console = open_console(shown)
    return Dialogue(console, StreamReader(io.StringIO(typed), console)), shown


def test_a_menu_is_answered_by_a_number_and_shows_its_entries_in_order() -> None:
    dialogue, shown = open_dialogue("2\n")
    assert dialogue.choose("Training Setup", ENTRIES) == 2
    lines = shown.getvalue().splitlines()
    assert lines[0] == "Training Setup"
    assert [line[2:] for line in lines[1:4]] == ["1. Start training", "2. Manage", "3. Exit"]
    assert lines[4] == "Choose 1-3 [1]: 2"


def test_an_empty_line_takes_the_marked_entry() -> None:
    assert open_dialogue("\n")[0].choose("Menu", ENTRIES, default=3) == 3


def test_a_wrong_answer_is_told_and_asked_again() -> None:
    dialogue, shown = open_dialogue("0\n4\n-1\nexit\n٣\n2.\n")
    assert dialogue.choose("Menu", ENTRIES) == 2
    assert shown.getvalue().count("is none of 1 to 3") == 5
    assert shown.getvalue().count("1. Start training") == 1, "the menu is not shown again"


def test_the_end_of_a_pipe_leaves_every_prompt() -> None:
    dialogue, _ = open_dialogue("")
    assert dialogue.choose("Menu", ENTRIES) is None
    assert dialogue.ask("Hours: ") is None
    assert dialogue.confirm("Sure? (y/n) ") is None


def test_a_question_is_asked_until_its_answer_can_be_used() -> None:
    def read(typed: str) -> int:
        if not typed.isdigit():
            raise ParameterError(f"wanted a number, got {typed}")
        return int(typed)

    dialogue, shown = open_dialogue("many\n 7 \n")
    assert dialogue.ask("Number of layers (1 to 512)", read, default="12") == 7
    assert "wanted a number, got many" in shown.getvalue()
    assert shown.getvalue().count("Number of layers (1 to 512) [12]: ") == 2


def test_an_empty_answer_is_the_default_and_without_one_it_is_asked_for() -> None:
    assert open_dialogue("\n")[0].ask("Number", int, default="12") == 12
    dialogue, shown = open_dialogue("\nx\n")
    assert dialogue.ask("Data set: ") == "x"
    assert "an answer is needed" in shown.getvalue()


def test_yes_and_no_are_told_apart_and_nothing_else_counts() -> None:
    assert [read_yes(word) for word in ("y", "YES", "n", "No")] == [True, True, False, False]
    with pytest.raises(InputError, match="wanted y or n"):
        read_yes("maybe")


def test_numbers_are_those_of_entries_only() -> None:
    assert [read_number(word, 1, 7) for word in ("", "7", "7.", "8", "0", "1e1", "9999999999")] == [
        *(1, 7, 7),
        *([None] * 4),
    ]


def test_what_was_typed_cannot_move_the_cursor() -> None:
    dialogue, shown = open_dialogue("\x1b[2J\n1\n")
    assert dialogue.choose("Menu", ENTRIES) == 1
    assert "\x1b" not in shown.getvalue()
