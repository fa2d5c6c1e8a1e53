"""The Text Generation interface, with lines from a pipe and at a terminal."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.command_line import LIGHTLM, SECONDS, Ended, Trained

PROMPT = "\x1b[?2004h"
"""What a terminal gets when it begins to read a line: from then on a key is the prompt's."""


def talk(home: Path, *lines: str) -> Ended:
    """Run `lightlm generate` without a prompt, with lines from a pipe."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW", "LIGHTLM"))
    }
    ended = subprocess.run(
        [str(LIGHTLM), "generate", "--name", "stories"],
        input="".join(f"{line}\n" for line in lines),
        env=kept | {"LIGHTLM_HOME": str(home)},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )

    return Ended(ended.returncode, ended.stdout, ended.stderr)


def test_a_session_shows_the_version_and_answers_until_quit(trained: Trained) -> None:
    settings = ["/seed 3", "/length 8", "/temperature 0.7", "/top-k 5", "/top-p 0.9"]
    wrong = [
        "/temperature hot",
        "/top-p 2",
        "/seeed 3",
        "/version 99",
        "/compare 1 1",
        "/top-k",
    ]

    ended = talk(
        trained.lightlm.home,
        *settings,
        "The river",
        *wrong,
        "The river",
        "/help",
        "quit",
        "never read",
    )

    assert ended.code == 0, ended.err
    first, second = ended.out.split("The river")[1:]
    assert first == second, "the same seed writes the same text"

    for words in (
        "stories version 1",
        "champion",
        "parameters",
        " entries",
        "tokens",
        "bits per byte",
        "on stories",
        "temperature is 'hot'",
        "top_p is '2'",
        "did you mean /seed?",
        "stories has no version 99",
        "name the same version",
        "/top-k wants one value",
        "/compare 2 3",
    ):
        assert words in ended.err, words

    assert "never read" not in ended.out
    assert "Traceback" not in ended.err


def test_control_characters_of_a_prompt_are_shown_and_not_sent(trained: Trained) -> None:
    ended = talk(trained.lightlm.home, "/length 2", "The \x1b[2J river")
    assert "The \\x1b[2J river" in ended.out
    assert "\x1b" not in ended.out + ended.err


def test_without_a_prompt_and_without_lines_it_says_what_is_wanted(trained: Trained) -> None:
    ended = talk(trained.lightlm.home)
    assert ended.code == 2
    assert "there is no prompt" in ended.err


def test_at_a_terminal_earlier_prompts_come_back_and_ctrl_d_ends(trained: Trained) -> None:
    pexpect = pytest.importorskip("pexpect")
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW", "LIGHTLM"))
    }
    terminal = pexpect.spawn(
        str(LIGHTLM),
        ["generate", "--max-new-tokens", "3"],
        env=kept | {"LIGHTLM_HOME": str(trained.lightlm.home), "TERM": "xterm-256color"},
        encoding="utf-8",
        dimensions=(24, 80),
        timeout=SECONDS,
    )

    terminal.expect("quit ends")
    terminal.expect_exact(PROMPT)
    terminal.sendline("The quiet lantern")
    terminal.expect("The quiet lantern.*The quiet lantern")
    # What is typed before is no key of the prompt, and a Ctrl-C ends the text alone.
    terminal.expect_exact(PROMPT)
    terminal.send("\x1b[A")
    terminal.expect("The quiet lantern")
    terminal.send("\x03")
    terminal.expect(pexpect.EOF)
    assert "Traceback" not in terminal.before
    assert terminal.wait() == 0
