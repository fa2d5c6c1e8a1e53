"""Exports of a version that the command line made: each computes what the version does."""

import json
from pathlib import Path

import pytest

from tests.command_line import Trained


@pytest.mark.parametrize("kind", ["hf", "gguf", "onnx"])
def test_an_export_computes_what_the_version_does(
    trained: Trained, tmp_path: Path, kind: str
) -> None:
    ended = trained.lightlm("export", tmp_path / kind, "--to", kind, "--json")
    assert ended.code == 0, ended.err
    done = json.loads(ended.out)
    assert done["largest_difference"] < 1e-3
    assert done["is_same_text"]
    assert "## Limits" in (tmp_path / kind / "README.md").read_text()
    again = trained.lightlm("export", tmp_path / kind, "--to", kind)
    assert again.code == 2
    assert "not empty" in again.err
