"""The command line: every command answers, and what cannot be used gets one line, exit code 2, and
leaves nothing.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command_line import LIGHTLM, SECONDS, CommandLine, Ended, Trained, settings


@pytest.fixture(scope="module")
def stranger(make_command_line: Callable[[], CommandLine]) -> CommandLine:
    """Return a command line on whose home nothing has ever run."""
    lightlm = make_command_line()
    folder = lightlm.folder
    (folder / "empty.txt").write_bytes(b"")
    (folder / "blank.txt").write_bytes(b"  \n\n\t\n")
    (folder / "tiny.txt").write_bytes(b"too little\n")
    (folder / "nothing").mkdir()
    (folder / "latin.txt").write_bytes(b"caf\xe9 au lait\n" * 20)
    (folder / "page.txt").write_bytes(
        b"".join(b"%d green bottles hang on the wall of the yard.\n\n" % i for i in range(99))
    )

    (folder / "rows.jsonl").write_text(
        '{"prose": "one two"}\n{"prose": "three four"}\n', encoding="utf-8"
    )
    return lightlm


def assert_refused(ended: Ended, *words: str) -> None:
    """Check for exit code 2, nothing on standard output, and one line on standard error that holds
    `words`.
    """
    assert ended.code == 2, ended.err
    assert ended.out == ""
    assert ended.err.endswith("\n")
    (line,) = ended.err.splitlines()
    assert line.startswith("lightlm: ")
    for word in words:
        assert word in line


@pytest.mark.parametrize("command", ["", "train"])
def test_the_help_needs_no_home(command: str, stranger: CommandLine) -> None:
    ended = stranger(*command.split(), "--help")
    assert ended.code == 0, ended.err
    assert ended.out.startswith(f"Usage: lightlm {command}".rstrip())
    assert ended.err == ""
    assert not stranger.home.exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train --hours 0", "budget.hours is 0"),
        ("train --fast", "--fast"),
        ("juggle", "juggle"),
        ("generate x", "run `lightlm train` first"),
    ],
)
def test_what_cannot_be_used_gets_one_line_and_leaves_nothing(
    command: str, words: str, stranger: CommandLine
) -> None:
    assert_refused(stranger(*command.split()), words)
    assert not stranger.home.exists() or not list(stranger.home.iterdir())


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train --hours=-1", "budget.hours is -1"),
        ("train --hours nan", "budget.hours is nan"),
        ("train --hours inf", "budget.hours is inf"),
        ("train --hours 1e9", "budget.hours is 1000000000"),
        ("train --hours soon", "hours are a number or a time with units"),
        ("plan --hours 0", "budget.hours is 0"),
        ("train --dataset empty.txt", "empty.txt holds no text"),
        ("train --dataset blank.txt", "blank.txt holds no text"),
        ("train --dataset nothing", "is an empty folder"),
        ("train --dataset nowhere.txt", "nowhere.txt does not exist"),
        ("train --dataset tiny.txt", "tiny.txt is too small"),
        (
            "train --dataset rows.jsonl --text-column text",
            "no column 'text'; its columns are prose",
        ),
        ("train --dataset page.txt --set model.context_length=100000", "model.context_length"),
        ("plan --dataset page.txt --set model.context_length=100000", "model.context_length"),
        ("train --set model.model_dim=100 --set model.num_heads=3", "num_heads 3"),
        ("train --set model.num_heads=4 --set model.num_kv_heads=3", "num_kv_heads 3"),
        ("train --set model.depth=3", "unknown parameter 'model.depth'"),
        ("train --set model", "--set wants section.key=value"),
        ("train --preset tremendous", "unknown preset 'tremendous'"),
        ("train --offline perhaps", "dataset.offline"),
        ("train --dataset page.txt --set tokenizer.source=./nowhere", "nowhere"),
        ("generate", "prompt"),
        ("generate x --temperature=-0.1", "temperature is -0.1"),
        ("generate x --temperature nan", "temperature is nan"),
        ("generate x --max-new-tokens 0", "max_new_tokens is 0"),
        ("generate x --model models:/lightlm/champion/x", "models:/NAME@ALIAS"),
        ("evaluate --text nowhere.txt", "nowhere.txt does not exist"),
        ("evaluate --text empty.txt", "empty.txt holds no text"),
        ("evaluate --text latin.txt", "run `lightlm train` first"),
    ],
)
def test_what_cannot_be_used_is_refused_and_leaves_nothing(
    command: str, words: str, stranger: CommandLine
) -> None:
    assert_refused(stranger.here(*command.split()), words)
    assert not stranger.home.exists() or not list(stranger.home.iterdir())


def test_the_version_is_told(stranger: CommandLine) -> None:
    ended = stranger("--version")
    assert (ended.code, ended.out) == (0, f"lightlm {importlib.metadata.version('lightlm')}\n")


def test_a_shell_completes_commands_presets_and_params(stranger: CommandLine) -> None:
    for typed, found in (
        ("lightlm tr", "train"),
        ("lightlm train --preset wik", "wikitext"),
        ("lightlm train --set model.num_l", "model.num_layers="),
    ):
        asked = {
            "COMP_WORDS": typed,
            "COMP_CWORD": str(typed.count(" ")),
            "_LIGHTLM_COMPLETE": "complete_bash",
        }
        ended = subprocess.run(
            [str(LIGHTLM)],
            env=os.environ | asked,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
        assert ended.stdout.split() == [found]


def test_each_line_of_the_help_fits_80_columns(stranger: CommandLine) -> None:
    lines = stranger("--help").out.splitlines()[1:]
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line.endswith("...")]


def test_an_empty_prompt_is_refused(stranger: CommandLine) -> None:
    assert_refused(stranger("generate", ""), "the prompt is empty")


def test_a_message_shows_control_characters_instead_of_obeying_them(stranger: CommandLine) -> None:
    name = "red\x1b[31m\nalert.txt"
    assert_refused(stranger("train", "--dataset", name), "red\\x1b[31m")
    assert_refused(stranger("generate", "x", "--model", name))


def test_an_unknown_version_is_refused_with_those_that_exist(trained: Trained) -> None:
    ended = trained.lightlm.here("generate", "The", "--model", "models:/stories/999")
    assert_refused(ended, "stories has no version 999; it has", "1")
    assert_refused(
        trained.lightlm.here("generate", "The", "--model", "999", "--name", "stories"),
        "no version 999",
    )
    ended = trained.lightlm.here("generate", "The", "--model", "models:/poet@champion")
    assert_refused(ended, "there is no model poet; registered models:", "stories")


def test_a_prompt_longer_than_the_context_is_refused(trained: Trained) -> None:
    assert_refused(
        trained.lightlm.here("generate", "garden " * 3000, "--name", "stories", "--model", "1"),
        "tokens",
    )


def test_generate_says_the_text_and_the_version_and_its_speed(trained: Trained) -> None:
    options = ["--model", "models:/stories/1", "--seed", 5, "--max-new-tokens", 20, "--json"]
    one, other = (trained.lightlm.here("generate", "The old", *options).json for _ in range(2))
    assert one.keys() >= {"text", "model_version", "num_new_tokens", "tokens_per_second"}
    assert one["model_version"] == "1"
    assert 0 < one["num_new_tokens"] <= 20
    assert one["tokens_per_second"] > 0
    assert one["text"] == other["text"]
    assert not one["text"].startswith("The old")


def test_temperature_zero_needs_no_seed_and_text_follows_its_prompt(trained: Trained) -> None:
    options = ["--name", "stories", "--model", "1", "--temperature", 0, "--max-new-tokens", 16]
    ended = trained.lightlm.here("generate", "The old", *options)
    assert ended.code == 0, ended.err
    assert (
        ended.out
        == f"The old{trained.lightlm.here('generate', 'The old', *options, '--json').json['text']}\n"
    )
    assert ended.err == ""


def test_control_characters_of_the_prompt_do_not_reach_the_terminal(trained: Trained) -> None:
    prompt = "\x1b[2J\x9b31m\u202ethe"
    options = ["--name", "stories", "--model", "1", "--max-new-tokens", 1]
    shown = trained.lightlm("generate", prompt, *options)
    assert shown.out.startswith("\\x1b[2J\\x9b31m\\u202ethe")
    raw = trained.lightlm("generate", prompt, *options, "--raw")
    assert raw.out.startswith(prompt)


def test_models_are_listed_for_a_person_and_for_a_script(trained: Trained) -> None:
    listed = {
        model["version"]: model for model in trained.lightlm.here("models", "--json").json["models"]
    }
    assert float(listed["1"]["tags"]["bits_per_byte"]) == pytest.approx(
        trained.summary["bits_per_byte"], abs=1e-5
    )
    table = trained.lightlm.here("models")
    assert (table.code, table.err) == (0, "")
    assert f"{trained.summary['bits_per_byte']:.3f}" in table.out


def test_no_models_is_an_answer_and_no_error(stranger: CommandLine) -> None:
    assert stranger.here("models", "--json").json == {"models": [], "names": []}
    assert "run `lightlm train` first" in stranger.here("models").err


def test_check_reports_the_machine(trained: Trained) -> None:
    report = trained.lightlm("check", "--json").json
    names = {check["name"] for check in report["checks"]}
    assert names >= {"Python", "GPU", "bfloat16", "CPU cores", "Memory", "Disk", "Tokenizer"}
    assert {check["status"] for check in report["checks"]} <= {"pass", "warn"}
    assert report["num_cores"] >= 1


def test_check_fails_where_the_machine_has_too_little_and_says_what_to_do(trained: Trained) -> None:
    ended = trained.lightlm("check", *settings(system__min_free_disk_bytes=10**18))
    assert ended.code == 2
    assert "Disk" in ended.out
    assert "Traceback" not in ended.err


@pytest.mark.slow
def test_a_plan_can_be_made_again_from_its_own_figures_without_measuring(
    trained: Trained, tmp_path: Path
) -> None:
    options = [
        "--hours",
        0.01,
        "--dataset",
        trained.text,
        *settings(tokenizer__vocab_size=512),
        "--json",
    ]

    runs = set((trained.lightlm.home / "runs").iterdir())
    first = trained.lightlm("plan", *options)
    assert first.json.keys() == {
        "hours",
        "model_name",
        "plan",
        "probe",
        "forecast",
        "starts",
    }
    assert first.json["plan"]["planner"] == "measured"
    path = tmp_path / "probe.json"
    path.write_text(json.dumps(first.json), encoding="utf-8")
    again = trained.lightlm("plan", *options, "--probe-file", path).json
    for name in ("model", "trainer", "predicted_bits_per_byte", "expected_tokens"):
        assert again["plan"][name] == first.json["plan"][name]

    assert again["probe"] == first.json["probe"]
    assert set((trained.lightlm.home / "runs").iterdir()) == runs
    assert not [c for c in first.err if c < " " and c != "\n"]


def test_a_probe_file_that_is_none_is_refused(stranger: CommandLine) -> None:
    for name in ("nowhere.json", "page.txt"):
        assert_refused(stranger.here("plan", "--dataset", "page.txt", "--probe-file", name), name)


@pytest.mark.parametrize(
    ("encoding", "target", "code", "told"),
    [("ascii", None, 0, ""), ("utf-8", "/dev/full", 1, "No space left on device")],
)
def test_a_stream_that_cannot_hold_the_answer_gives_no_traceback(
    tmp_path: Path, encoding: str, target: str | None, code: int, told: str
) -> None:
    if target is not None and not Path(target).exists():
        pytest.skip("needs a full device")

    text = "\n\n".join(
        f"Passage {number} — of the “odd” text, with some more words in it." for number in range(40)
    )
    (tmp_path / "notes 😀.txt").write_text(text, "utf-8")

    with Path(target or tmp_path / "out").open("w") as out:
        ended = subprocess.run(
            [str(LIGHTLM), "look", str(tmp_path / "notes 😀.txt")],
            env=os.environ | {"PYTHONIOENCODING": encoding, "LIGHTLM_HOME": str(tmp_path / "home")},
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    assert "Traceback" not in ended.stderr
    assert ended.returncode == code, ended.stderr
    assert told in ended.stderr
    if target is None:
        assert "\\U0001f600" in (tmp_path / "out").read_text()


def test_the_command_line_imports_nothing_heavy_before_a_command_needs_it() -> None:
    words = "import sys, lightlm_flows.cli.main; print(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", words], capture_output=True, text=True, check=True
    )
    heavy = {"torch", "mlflow", "prefect", "numpy", "tokenizers", "lightlm.runs.session"}
    assert heavy.isdisjoint(ended.stdout.split())
