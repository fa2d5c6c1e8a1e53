"""The screens and Python examples in the documents are what the commands print and Python runs."""

import re
import shutil
import subprocess
import sys
from difflib import SequenceMatcher
from pathlib import Path

import pytest

from tests.command_line import NO_RUNS, SECONDS, CommandLine, Trained

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
TUTORIAL = (DOCUMENTS / "tutorial.md").read_text(encoding="utf-8")
LIKE = 0.6
"""Ratio of equal characters from which two lines without figures have the same form."""

ALTERNATIVES = (
    "nothing to do: the plan suits the CPU; with an NVIDIA card",
    "GPU",
    "than predicted",
    "the last # run on this hardware",
    "earlier run on this text moved the prediction",
    "the text is read",
    "not compiled",
    "for what follows",
    "start-up time",
    "over the budget",
)
"""Lines that a run on another machine or text may lack."""


def list_screens(command: str) -> list[str]:
    """Return the text blocks of the tutorial that follow a command's own block."""
    _, found, rest = TUTORIAL.partition(f"```sh\n{command}")
    assert found, command
    section = rest.partition("\n## ")[0]
    return re.findall(r"^```text\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def strip_figures(line: str) -> str:
    """Return a line without figures, units, folders, rules and runs of spaces."""
    line = re.sub(r"\S*/(\S*)", r"\1", line)
    line = re.sub(r"\d[\d,.]*", "#", line)
    line = re.sub(r"# ([kM]?B|M|ms|s|h|kB)\b", "#", line)
    return " ".join(re.sub(r"[─▸%]|layers?|heads?", "", line).split())


def find_unlike(screen: str, printed: str) -> list[str]:
    """Return the lines of a screen for which a command printed nothing of the same form."""
    real = {strip_figures(line) for line in printed.splitlines()}
    unlike = []
    for line in screen.splitlines():
        form = strip_figures(line)
        is_known = any(
            other.startswith(form) or SequenceMatcher(None, form, other).ratio() >= LIKE
            for other in real
        )
        if form and not is_known and not any(words in form for words in ALTERNATIVES):
            unlike.append(line)
    return unlike


@pytest.fixture(scope="module")
def lightlm(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """Return a command line in a copy of the home that `printed` tells of, and nothing else."""
    folder = tmp_path_factory.mktemp("screens")
    shutil.copytree(trained.copy, folder / "home", ignore=NO_RUNS)
    return CommandLine(folder / "home", folder)


@pytest.fixture(scope="module")
def printed(trained: Trained) -> str:
    """Return all that a training prints to a pipe."""
    return trained.run.err + trained.run.out


def test_the_check_prints_what_the_tutorial_shows(lightlm: CommandLine) -> None:
    (screen,) = list_screens("lightlm check")
    assert find_unlike(screen, lightlm("check").out) == []


def test_a_training_prints_what_the_tutorial_shows(printed: str) -> None:
    (screen,) = list_screens("lightlm train --hours 0.02")
    assert find_unlike(screen.replace("python-docs", "stories"), printed) == []


def test_a_training_ends_as_readme_shows(printed: str) -> None:
    screen = re.findall(r"^```text\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[0]
    assert find_unlike(screen.replace("wikitext-2-v1", "stories"), printed) == []


def test_the_menus_have_the_entries_that_the_tutorial_shows() -> None:
    entries = re.findall(r"^[▸ ] \d\. (.+)$", TUTORIAL, re.MULTILINE)
    code = (ROOT / "flows" / "cli" / "setup_session.py").read_text(encoding="utf-8")
    assert len(entries) == 10
    assert [entry for entry in entries if f'"{entry}"' not in code] == []


def test_generate_names_the_model_as_the_tutorial_shows(lightlm: CommandLine) -> None:
    (screen,) = list_screens('lightlm generate "The"')
    first = lightlm("generate", "The", "--max-new-tokens", 2).err.splitlines()[0]
    assert screen.replace("python-docs", "stories").splitlines()[0] == first


def test_a_plan_prints_what_the_tutorial_shows(lightlm: CommandLine, text: Path) -> None:
    (screen,) = list_screens("lightlm plan --hours 0.02")
    planned = lightlm("plan", "--hours", 0.02, "--dataset", text)
    assert planned.code == 0, planned.err
    assert find_unlike(screen.replace("python-docs", "stories"), planned.err + planned.out) == []


def test_a_line_that_no_command_prints_is_found() -> None:
    assert find_unlike("  training  49 s\n", " training   2.1 s   9 %\n") == []
    assert find_unlike("  preparation of things  49 s\n", " training   2.1 s   9 %\n") != []


def test_the_script_makes_the_picture_of_the_panel(trained: Trained, tmp_path: Path) -> None:
    run = Path(trained.summary["folder"]).parent
    script = ROOT / "benchmarks" / "panel_picture.py"
    out = tmp_path / "panel.svg"
    subprocess.run(
        [sys.executable, "-P", script, run, "--hours", "0.005", "--at", "30", "--out", out],
        check=True, timeout=SECONDS,
    )  # fmt: skip
    known = re.findall(r"bits&#160;per&#160;byte|lightlm&#160;train|@font-face", out.read_text())
    assert {"bits&#160;per&#160;byte", "lightlm&#160;train"} == set(known)
    assert "</svg>" in (DOCUMENTS / "panel.svg").read_text(encoding="utf-8")
