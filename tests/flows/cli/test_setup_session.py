"""The Training Setup session: the documented sequence at a terminal, every screen in a pipe, ways
out everywhere.
"""

import io
import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lightlm.budget.probe import MachineRate
from lightlm.console.lines import StreamReader
from lightlm.console.menus import Dialogue
from lightlm.console.next_commands import name_command
from lightlm.console.terminal import open_console
from lightlm.params import load_params, parse_assignments
from lightlm.runs.folder import read_decisions
from lightlm_flows.cli.commands.setup import is_asked_for
from lightlm_flows.cli.setup_session import format_command
from lightlm_flows.cli.shape_editor import MANUAL, Editor
from tests.command_line import LIGHTLM, SECONDS, CommandLine, Ended

RATE = MachineRate(
    device="cpu",
    dtype="bfloat16",
    num_threads=2,
    flops_per_second=4e11,
    memory_bytes=16_000_000_000,
)


def answer(lightlm: CommandLine, *lines: str, dataset: Path) -> Ended:
    """Run `lightlm setup` with lines from a pipe."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW", "LIGHTLM"))
    }
    ended = subprocess.run(
        [str(LIGHTLM), "setup", "--dataset", str(dataset)],
        input="".join(f"{line}\n" for line in lines),
        env=kept | {"LIGHTLM_HOME": str(lightlm.home)},
        cwd=lightlm.folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )

    return Ended(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture(scope="module")
def newcomer(make_command_line: Callable[[], CommandLine]) -> CommandLine:
    """Return a command line on whose home nothing has run."""
    return make_command_line()


def test_the_documented_sequence_runs_through_at_a_terminal_while_another_process_watches(
    make_command_line: Callable[[], CommandLine], text: Path
) -> None:
    pexpect = pytest.importorskip("pexpect")
    lightlm = make_command_line()
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW", "LIGHTLM"))
    }
    terminal = pexpect.spawn(
        str(LIGHTLM),
        ["setup", "--dataset", str(text)],
        env=kept | {"LIGHTLM_HOME": str(lightlm.home), "TERM": "xterm-256color"},
        cwd=str(lightlm.folder),
        encoding="utf-8",
        dimensions=(24, 80),
        timeout=SECONDS,
    )

    terminal.expect("Training Setup")
    shown_plan = ""
    for shown, typed in (
        ("Choose 1-3", "2"),
        ("Choose 1-7", "5"),
        (r"Enter desired training time in hours \(e.g., 24.0\):", "9s"),
        (r"Apply these optimizations\? \(y/n\):", "y"),
        ("Choose 1-7", "4"),
        ("Choose 1-7", "6"),
        ("Choose 1-3", "1"),
    ):
        terminal.expect(shown)
        if shown.startswith("Apply"):
            shown_plan = terminal.before or ""
        terminal.sendline(typed)

    deadline = time.monotonic() + SECONDS
    while not list(lightlm.home.glob("runs/*/record.journal")):
        assert time.monotonic() < deadline, "no run begins"
        time.sleep(0.1)

    watching = lightlm.start("watch")
    terminal.expect("Training completed: stories")
    terminal.expect(pexpect.EOF)
    assert terminal.wait() == 0
    _, told = watching.communicate(timeout=SECONDS)
    assert watching.returncode == 0, told
    for words in ("Watching", "Plan: ", "finished"):
        assert words in told, words

    saved = json.loads((lightlm.home / "last_config.json").read_text(encoding="utf-8"))
    assert saved["params"]["budget"]["hours"] == 0.0025
    assert saved["params"]["model"]["num_layers"] == 1
    # What stood on the screen, and was agreed to, is what was trained.
    (journal,) = lightlm.home.glob("runs/*/run-*.journal")
    trained = read_decisions(journal)["plan"]["plan"]
    assert saved["params"]["model"].items() <= trained["model"].items()
    assert saved["params"]["tokenizer"]["vocab_size"] == trained["model"]["vocab_size"]
    assert saved["params"]["training"]["batch_tokens"] == trained["trainer"]["batch_tokens"]
    assert f"{trained['num_parameters']:,}, " in shown_plan


def test_a_session_in_a_pipe_makes_saves_and_loads_a_configuration(
    newcomer: CommandLine, text: Path
) -> None:
    made = ["2", "3", "4", "128", "", "64", "off", "", "0.01", "1", "4"]
    broken = newcomer.folder / "broken.json"
    broken.write_text('{"params": ', encoding="utf-8")
    ended = answer(
        newcomer, *made, "2", str(broken), "", "1", "nowhere.txt", "", "6", "3", dataset=text
    )

    assert ended.code == 0, ended.err
    assert ended.out == ""
    for words in (
        "Python",
        "4 layers x 128 dims, 2 heads, context 64",
        "of memory",
        "Configuration saved to",
        "damaged, it is no JSON",
        "Configuration loaded",
        "nowhere.txt does not exist",
        "Nothing is trained",
    ):
        assert words in ended.err, words

    assert "Traceback" not in ended.err
    assert "\x1b" not in ended.err


@pytest.mark.parametrize("lines", [[], ["2", "3", "12"]], ids=" ".join)
def test_wherever_the_lines_end_the_session_ends_without_a_traceback(
    lines: list[str], newcomer: CommandLine, text: Path
) -> None:
    ended = answer(newcomer, *lines, dataset=text)
    assert ended.code == 0, ended.err
    assert "Nothing is trained" in ended.err
    assert "Traceback" not in ended.err


def test_no_value_ends_a_session(newcomer: CommandLine, tmp_path: Path) -> None:
    hub = ["2", "1", "owner/set", "2018"]
    ended = answer(newcomer, "1", *hub, "6", "3", dataset=tmp_path / "gone.txt")
    assert ended.code == 0, ended.err
    for words in (
        "gone.txt does not exist",
        "owner/set (2018)",
        "Model set-2018, named after the data set",
    ):
        assert words in ended.err, words
    assert "Nothing is trained" in ended.err


def test_train_does_not_ask_where_nobody_sits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["lightlm", "train"])
    monkeypatch.setattr("sys.stdin", io.StringIO("1\n"))
    assert not is_asked_for()


def edit(*lines: str) -> tuple[dict[str, object] | None, str]:
    """Return what the editor makes of lines, and what it said."""
    shown = io.StringIO()
    console = open_console(shown)
    dialogue = Dialogue(
        console, StreamReader(io.StringIO("".join(f"{line}\n" for line in lines)), console)
    )
    return Editor(dialogue, {"dataset.source": "notes/"}, lambda: RATE).edit(), shown.getvalue()


def test_the_editor_begins_with_the_documented_defaults() -> None:
    made, shown = edit("", "", "", "", "", "", "", "1")
    assert made is not None
    assert made["budget.planner"] == "manual"
    assert made["dataset.source"] == "notes/"
    assert {name: made[name] for name in MANUAL} == {
        "model.num_layers": 12,
        "model.model_dim": 768,
        "model.num_heads": 12,
        "model.context_length": 1024,
        "model.flash_attention": False,
        "model.mixture_of_experts": False,
    }

    assert "parameters" in shown
    assert "tokens/s" in shown
    assert load_params(overrides=made).model.num_layers == 12


def test_the_editor_explains_bounds_each_value_and_offers_heads_that_divide() -> None:
    made, shown = edit("?", "0", "2", "100", "7", "", "64", "maybe", "on", "y", "0.5", "1")
    assert made is not None
    assert "Blocks of attention" in shown
    assert "model.num_layers is 0" in shown
    assert "model_dim 100 is not a multiple of num_heads 7" in shown
    assert "wanted on or off, got 'maybe'" in shown
    assert (
        made["model.num_layers"],
        made["model.flash_attention"],
        made["model.mixture_of_experts"],
    ) == (
        2,
        True,
        True,
    )

    assert made["budget.hours"] == 0.5


def test_leaving_the_editor_changes_nothing() -> None:
    assert edit("2", "64")[0] is None
    assert edit("", "", "", "", "", "", "", "3")[0] is None


def test_the_command_that_is_shown_trains_the_same() -> None:
    choices = {
        "budget.hours": 0.001,
        "dataset.source": "my notes/",
        "dataset.config": None,
        "model.num_layers": 2,
    }

    started = [*shlex.split(name_command()), "train"]
    words = shlex.split(format_command(choices | {"model.tie_embeddings": True}))
    assert words[: len(started)] == started
    words = words[len(started) :]
    options = list(zip(words[::2], words[1::2], strict=True))
    hours = next(float(value) for name, value in options if name == "--hours")
    overrides = parse_assignments([value for name, value in options if name == "--set"])
    assert load_params(overrides=overrides, hours=hours) == load_params(
        overrides=choices | {"model.tie_embeddings": True}
    )
