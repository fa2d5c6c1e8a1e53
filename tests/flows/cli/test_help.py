"""The help: every command explains itself, and every option names what holds without it."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from lightlm.hours import parse_hours
from lightlm.params import load_params
from lightlm_flows.cli.main import app

MOST_COLUMNS = 80


def list_commands(command: Any = None, *words: str) -> Iterator[tuple[str, Any]]:
    """Yield every command with its words, groups included."""
    command = command or get_command(app)
    yield " ".join(words), command
    for name, one in getattr(command, "commands", {}).items():
        yield from list_commands(one, *words, name)


COMMANDS = dict(list_commands())
PARAMETERS = {
    f"{words} {parameter.name}".strip(): (command, parameter)
    for words, command in COMMANDS.items()
    for parameter in command.params
    if "--help" not in parameter.opts and not parameter.name.endswith("_completion")
}


def read_help(command: Any, parameter: Any) -> str:
    """Return a parameter's text in the help; "" where it has none."""
    context = command.make_context("lightlm", [], resilient_parsing=True)
    record = parameter.get_help_record(context)
    return "" if record is None else record[1]


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_explains_itself(words: str) -> None:
    ended = CliRunner().invoke(app, [*words.split(), "--help"], prog_name="lightlm")
    assert ended.exit_code == 0
    assert ended.output.startswith(f"Usage: lightlm {words}".rstrip())
    summary = COMMANDS[words].help.split("\n\n")[0]
    assert summary[0].isupper()
    assert summary.endswith(".")
    assert len(summary) <= MOST_COLUMNS


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_option_says_what_it_does_and_what_holds_without_it(name: str) -> None:
    command, parameter = PARAMETERS[name]
    text = read_help(command, parameter)
    assert re.match(r"[A-Z]|[a-z.]+ \(|models:/|0:|HOST", text), text
    is_off_by_default = getattr(parameter, "is_flag", False) and not parameter.default
    assert parameter.required or is_off_by_default or "default: " in text.lower(), text


def test_the_defaults_in_the_help_are_those_of_the_presets() -> None:
    hours = read_help(*PARAMETERS["train hours"])
    stated = dict(re.findall(r"(base|retrain): (\w+)", hours))
    assert {preset: parse_hours(time) for preset, time in stated.items()} == {
        preset: load_params(preset).budget.hours for preset in ("base", "retrain")
    }
    assert f"base: {load_params().dataset.source})" in read_help(*PARAMETERS["train dataset"])
    prompt = read_help(*PARAMETERS["train sample_prompt"])
    assert f"default: {load_params().training.sample_prompt}." in prompt


@pytest.mark.parametrize(
    "name", ["max_new_tokens", "temperature", "top_k", "top_p", "repetition_penalty"]
)
def test_the_defaults_of_sampling_in_the_help_are_those_of_the_params(name: str) -> None:
    value = getattr(load_params().generation, name)
    assert f"default: {value}." in read_help(*PARAMETERS[f"generate {name}"])
