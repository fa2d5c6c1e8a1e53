"""Tests of `lightlm store`: what a person sees, and what an unfinished run keeps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MAKE = """
from lightlm.store.home import find_home
from lightlm.store.stage import open_stage
def build(folder):
    (folder / "content").write_text("made")
    return {}
for name in ("kept", "loose"):
    print(open_stage(find_home(), "shards", {"name": name}, build).fingerprint)
"""


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    code = "import sys; from lightlm_flows.cli.main import main; sys.argv[0] = 'lightlm'; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "160"},
    )


@pytest.fixture
def stages(home: Path) -> list[str]:
    """Make two stages, of which an unfinished run needs the first."""
    made = subprocess.run(
        [sys.executable, "-c", MAKE], capture_output=True, text=True, check=True
    ).stdout.split()
    from lightlm.store.journal import Journal

    journal = Journal(home / "runs" / "20260101-000000-abcdef" / "run-0.journal")
    journal.append({"name": "plan", "value": {"shards": made[0]}})
    journal.close()
    return made


def test_the_list_says_what_uses_what(stages: list[str]) -> None:
    shown = run("store")
    assert shown.returncode == 0
    lines = {
        name: next(line for line in shown.stdout.splitlines() if name in line) for name in stages
    }
    assert "20260101-000000-abcdef" in lines[stages[0]]
    assert "20260101-000000-abcdef" not in lines[stages[1]]
    items = json.loads(run("store", "--json").stdout)["items"]
    assert {item["kind"] for item in items} == {"run", "shards"}


def test_pruning_keeps_what_an_unfinished_run_needs(home: Path, stages: list[str]) -> None:
    dry = run("store", "prune", "--dry-run")
    assert f"would remove shards {stages[1]}" in dry.stdout
    assert (home / "store" / "shards" / stages[1]).exists()
    assert run("store", "prune", "--older-than", "1").stdout == "0 B freed\n"
    done = json.loads(run("store", "prune", "--json").stdout)
    assert [item["path"] for item in done["removed"]] == [f"store/shards/{stages[1]}"]
    assert sorted(path.name for path in (home / "store" / "shards").glob("[!.]*")) == [stages[0]]


def test_verifying_names_the_damaged_file_and_fails(home: Path, stages: list[str]) -> None:
    assert run("store", "verify").returncode == 0
    (home / "store" / "shards" / stages[0] / "content").write_text("evil")
    verified = run("store", "verify")
    assert verified.returncode == 74
    assert f"shards/{stages[0]}/content has SHA-256" in verified.stderr
