"""What a person is told to type next can be typed."""

import sys
from pathlib import Path

import pytest

from lightlm.console.next_commands import list_next_commands, name_command

OWN = Path(sys.executable).with_name("lightlm")


def test_the_command_is_named_as_it_is_found_from_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(OWN.parent))
    assert name_command() == "lightlm"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert name_command() == str(OWN)
    monkeypatch.chdir(OWN.parent.parent.parent)
    assert name_command() == str(OWN.relative_to(Path.cwd()))


def test_another_installations_command_on_the_path_is_not_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "lightlm"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert name_command() == str(OWN)


def test_without_a_script_python_runs_the_module(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert name_command() == f"{tmp_path / 'python'} -P -m lightlm_flows.cli"


def test_the_next_commands_name_this_model_and_a_version_that_is_no_champion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", str(OWN.parent))
    write, models, _ = list_next_commands("notes", "3", ["champion", "challenger"])
    assert (write, models) == ('lightlm generate "The" --name notes', "lightlm models --name notes")
    assert (
        list_next_commands("notes", "4", ["challenger"])[0]
        == 'lightlm generate "The" --model models:/notes/4'
    )
    assert list_next_commands("notes", "", []) == ("lightlm sync",)
