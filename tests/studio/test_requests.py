"""Requests of the page: the commands that they stand for."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from typer.testing import CliRunner

from lightlm.params import load_params, name_texts
from lightlm.studio.requests import CommandRequest, TrainRequest
from lightlm_flows.cli.main import app

COMMANDS: TypeAdapter[Any] = TypeAdapter(CommandRequest)
RECIPE = {"dataset": "-notes.txt", "hours": "30m", "name": "notes", "start": "auto"}
MIXED = {
    "dataset": "notes.txt",
    "others": [{"dataset": "mails:1", "weight": "0.3"}, {"dataset": "-x"}],
    "mask": True,
}
ALL: list[dict[str, Any]] = [
    {"kind": "look", "dataset": "-notes.txt", "text_column": "body"},
    {"kind": "look"},
    {"kind": "look"} | MIXED,
    {"kind": "plan"} | RECIPE | MIXED,
    {"kind": "compare"} | RECIPE,
    {"kind": "bases"},
    {"kind": "promote", "name": "notes", "version": "3"},
    {"kind": "rollback", "name": "notes"},
    {"kind": "export", "name": "notes", "version": "3", "to": "gguf"},
    {"kind": "export", "name": "notes", "version": "3", "to": "gguf", "quantize": "q8_0"},
    {"kind": "export", "name": "notes", "version": "3", "to": "web"},
    {"kind": "report", "run": "20260101-000000-abcdef"},
]


@pytest.mark.parametrize("request_", ALL, ids=lambda one: one["kind"])
def test_every_request_is_a_command_with_options_that_exist(request_: dict[str, Any]) -> None:
    words = COMMANDS.validate_python(request_).list_words()
    before = words[: words.index("--")] if "--" in words else words
    assert CliRunner().invoke(app, [*before, "--help"]).exit_code == 0


def test_a_training_is_a_command_with_options_that_exist() -> None:
    words = TrainRequest(**RECIPE, sample_prompt="The", is_fresh=True).list_words()  # type: ignore[arg-type]
    assert CliRunner().invoke(app, [*words, "--help"]).exit_code == 0
    assert "--dataset=-notes.txt" in words
    assert "--fresh" in words


def test_further_texts_are_named_with_their_weights_and_masking_is_set() -> None:
    options = ["--dataset=notes.txt", "--dataset=mails:1:0.3", "--dataset=-x:auto"]
    words = TrainRequest.model_validate(MIXED).list_words()
    assert words == ["train", "--quiet", "--json", *options, "--set=dataset.mask=true"]
    looked = COMMANDS.validate_python({"kind": "look"} | MIXED).list_words()
    assert looked[-4:] == ["--", "notes.txt", "mails:1:0.3", "-x:auto"]
    first, others = name_texts(looked[-3:])
    assert load_params(overrides=others, dataset=first).dataset.others[0].source == "mails:1"


def test_an_empty_field_is_not_given() -> None:
    assert TrainRequest(dataset="  ", hours="", name="").list_words() == [
        "train", "--quiet", "--json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "request_",
    [
        {"kind": "shell"}, {"kind": "look", "dataset": "a\0b"}, {"kind": "look", "extra": "x"},
        {"kind": "promote", "name": "--help", "version": "1"},
        {"kind": "promote", "name": "notes", "version": "1 --force"},
        {"kind": "export", "name": "../notes", "version": "1", "to": "hf"},
        {"kind": "export", "name": "notes", "version": "1", "to": "../../x"},
        {"kind": "export", "name": "notes", "version": "1", "to": "hf", "quantize": "q8_0"},
        {"kind": "look", "others": [{"dataset": "notes.txt"}]},
        {"kind": "look", "dataset": "a", "others": [{"dataset": "b", "weight": "2"}]},
        {"kind": "look", "dataset": "a", "others": [{"dataset": " "}]},
        {"kind": "report", "run": "../../etc"}, {"kind": "report", "run": "20260101-000000-abcdef\n"},
        {"kind": "plan", "measured": "../x"}, {"kind": "look", "dataset": "x" * 5000},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_command_of_ours_is_refused(request_: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        COMMANDS.validate_python(request_)
