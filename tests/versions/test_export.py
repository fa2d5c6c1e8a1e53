"""Exports of a version that the command line made: each computes what the version does."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lightlm.errors import InputError
from lightlm.versions.export import check_folder
from lightlm_flows.cli.main import app
from tests.command_line import FIRST_VERSION, Trained


@pytest.mark.parametrize(
    "kind", ["hf", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("gguf", "onnx"))]
)
def test_an_export_computes_what_the_version_does(
    trained: Trained, tmp_path: Path, kind: str
) -> None:
    ended = trained.lightlm("export", tmp_path / kind, "--to", kind, *FIRST_VERSION, "--json")
    assert ended.code == 0, ended.err
    done = json.loads(ended.out)
    assert done["largest_difference"] < 1e-3
    assert done["is_same_text"]
    assert "## Limits" in (tmp_path / kind / "README.md").read_text()
    again = trained.lightlm.here("export", tmp_path / kind, "--to", kind)
    assert again.code == 2
    assert "not empty" in again.err


def test_a_quantized_export_says_what_it_costs_on_held_out_text(
    trained: Trained, tmp_path: Path
) -> None:
    folder = tmp_path / "small"
    words = ("export", folder, "--to", "gguf", "--quantize", "q8_0", *FIRST_VERSION, "--json")
    ended = trained.lightlm.here(*words)
    rounded = ended.json["rounded"]
    assert rounded["quantization"] == "q8_0"
    assert rounded["num_bytes"] > 10_000
    assert rounded["bits_per_byte"] == pytest.approx(rounded["fp32_bits_per_byte"], rel=0.01)
    assert f"q8_0: {rounded['bits_per_byte']:.4f} bits" in (folder / "README.md").read_text()
    assert not (folder / "read-back").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--to hf --quantize q8_0", "--quantize q8_0 is for --to gguf"),
        ("--to gguf --quantize q4_k", "llama-quantize"),
        ("--to pdf", "give hf, gguf"),
        ("--to gguf --text notes.txt", "--text is what smaller weights are measured on"),
        ("--to hf --libraries npm", "--libraries is for --to web"),
    ],
)
def test_what_cannot_be_exported_is_refused(tmp_path: Path, words: str, message: str) -> None:
    ended = CliRunner().invoke(app, ["export", str(tmp_path / "new"), *words.split()])
    assert message in str(ended.exception)
    assert not (tmp_path / "new").exists()


def test_a_link_is_no_new_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere", "link"):
        link = tmp_path / f"to-{name}"
        link.symlink_to(tmp_path / name)
        with pytest.raises(InputError, match="is a link; give a new folder"):
            check_folder(link)
    check_folder(tmp_path / "empty")
