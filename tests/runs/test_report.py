"""The report of a run that the command line made, and the exports of its version."""

import json
import re
from pathlib import Path

import pytest


def test_the_report_tells_the_run_in_one_file_that_needs_no_network(trained):
    ended = trained.lightlm("report")
    assert ended.code == 0, ended.err
    page = Path(ended.out.strip())
    text = page.read_text(encoding="utf-8")

    for told in (
        "this model",
        "n-gram, order 5",
        "zstd",
        "xz",
        "Where each second went",
        "held-out text",
        "Provenance",
    ):
        assert told in text, told

    assert not re.findall(r'(?:src|href)="https?:', text)
    assert "also in MLflow" in ended.err
    (sent,) = trained.lightlm.home.rglob("mlartifacts/**/report/report.html")
    assert sent.read_text(encoding="utf-8") == text
    assert (page.parent / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert (page.parent / "scores.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_is_not_there_is_refused_with_where_it_was_looked_for(trained):
    ended = trained.lightlm("report", "19700101")
    assert ended.code == 2
    assert "no finished run begins with '19700101'" in ended.err


@pytest.mark.parametrize("kind", ["hf", "gguf", "onnx"])
def test_an_export_computes_what_the_version_does(trained, tmp_path, kind):
    ended = trained.lightlm("export", tmp_path / kind, "--to", kind, "--json")
    assert ended.code == 0, ended.err
    done = json.loads(ended.out)
    assert done["largest_difference"] < 1e-3
    assert done["is_same_text"]
    assert "## Limits" in (tmp_path / kind / "README.md").read_text()
    again = trained.lightlm("export", tmp_path / kind, "--to", kind)
    assert again.code == 2
    assert "not empty" in again.err
