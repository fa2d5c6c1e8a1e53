"""The report of a run that the command line made."""

import json
import re
import shutil
from pathlib import Path

from lightlm.runs.finished import SUMMARY, read_summary
from lightlm.tracking.catalog import resolve
from lightlm.tracking.shipped import STATE
from tests.command_line import Trained


def test_the_report_tells_the_run_in_one_file_that_needs_no_network(trained: Trained) -> None:
    ended = trained.lightlm("report", Path(trained.summary["folder"]).parent.name)
    assert ended.code == 0, ended.err
    page = Path(ended.out.strip())
    text = page.read_text(encoding="utf-8")

    for told in (
        "this model",
        "counting, Kneser-Ney of order 6",
        "zstd",
        "xz",
        "of training documents, 32 tokens each",
        "of held-out documents, which it has not read",
        "What it repeats, and what it knows of other text",
        "Where each second went",
        "held-out text",
        "Provenance",
    ):
        assert told in text, told

    assert not re.findall(r'(?:src|href)="https?:', text)
    assert "also in MLflow" in ended.err
    sent = trained.lightlm.home.rglob("mlartifacts/**/report/report.html")
    assert text in [path.read_text(encoding="utf-8") for path in sent]
    audit = json.loads((page.parent / "audit.json").read_text(encoding="utf-8"))
    assert 0.3 < audit["general_bits_per_byte"] < 20
    assert audit["base_general_bits_per_byte"] is None
    assert audit["problem"] == ""
    name, version = trained.summary["model_name"], trained.summary["model_version"]
    found = resolve(trained.lightlm.home, f"models:/{name}/{version}")
    assert "verbatim for" in found.tags["audit"]
    assert "Measured by `lightlm report` on" in found.tags["audit"]
    assert (page.parent / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert (page.parent / "scores.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_is_not_there_is_refused_with_where_it_was_looked_for(trained: Trained) -> None:
    ended = trained.lightlm.here("report", "19700101")
    assert ended.code == 2
    assert "no finished run begins or ends with '19700101'" in ended.err


def test_a_run_that_mlflow_took_late_is_reported_with_its_version(
    trained: Trained, tmp_path: Path
) -> None:
    """Its summary was written before: `lightlm sync` was to send what it had sent long ago."""
    folder = Path(trained.summary["folder"]).parent
    before = tmp_path / "run"
    before.mkdir()
    for path in folder.glob("*.j*"):
        shutil.copy(path, before)
    unregistered = {"model_version": "", "run_id": "", "aliases": [], "promotion": "not yet"}
    written = json.loads((folder / SUMMARY).read_text()) | unregistered
    (before / SUMMARY).write_text(json.dumps(written))

    known = read_summary(folder)
    assert known is not None
    assert known.model_version == "1"
    assert read_summary(before) == known
    (before / STATE).unlink()
    told = read_summary(before)
    assert told is not None
    assert (told.model_version, told.promotion) == ("", "not yet")
