"""Runs as the page sees them: whoever started them."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightlm.child_process import python_command
from lightlm.store.lock import read_holder
from lightlm.studio.jobs import Job
from lightlm.studio.live import LiveRuns
from lightlm.tracking.recorder import LOCK
from tests.studio.conftest import SECONDS, Page

RUN = "20260101-000000-abcdef"

RECORD = """
import sys, time
from pathlib import Path
from lightlm.store.journal import Journal
from lightlm.tracking.recorder import Recorder

folder = Path(sys.argv[1])
recorder = Recorder(folder)
recorder.start_run("train-0.02h-notes", "lightlm", {}, "", system_metrics=False)
recorder.log_metrics({"train/loss": 5.0, "train/tokens": 1e3, "budget/progress": 0.25,
                      "throughput/tokens_per_second": 2e3, "budget/elapsed_seconds": 20.0}, 4)
recorder.log_text("the river is", "samples/step-0000004.txt")
Journal(folder / "budget.journal").append({"seconds": 20.0, "entries": {"check": 1.0, "training": 5.0}})
print("ready", flush=True)
try:
    time.sleep(600)
except KeyboardInterrupt:
    pass
"""
"""A process that records a run as a training does, until it is stopped."""


@pytest.fixture
def running(home: Path) -> "Iterator[subprocess.Popen[str]]":
    """Return a process of another program that works on a run."""
    folder = home / "runs" / RUN
    folder.mkdir(parents=True)
    command = [*python_command("x")[:2], "-c", RECORD, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def test_a_run_of_another_program_is_listed_shown_and_stopped(
    page: Page, running: "subprocess.Popen[str]"
) -> None:
    (listed,) = page.get("/api/runs")["runs"]
    assert (listed["run"], listed["state"], listed["can_continue"]) == (RUN, "running", False)

    shown = page.get(f"/api/runs/{RUN}")
    assert shown["stage"] == "Training"
    assert shown["budget"] == 72
    assert shown["elapsed"] >= 20
    assert shown["loss"] == 5
    assert shown["step"] == 4
    assert shown["sample"] == {"step": 4, "text": "the river is"}
    assert ["Training", 5.0] in shown["ledger"]
    assert any("Training" in line for line in shown["lines"])
    assert page.get(f"/api/runs/{RUN}")["step"] == 4, "a second look forgets nothing"

    page.post(f"/api/runs/{RUN}/stop")
    running.wait(SECONDS)
    assert page.get("/api/runs")["runs"][0]["state"] == "died"


def test_a_run_that_no_process_works_on_cannot_be_stopped(
    page: Page, running: "subprocess.Popen[str]"
) -> None:
    running.kill()
    running.wait(SECONDS)
    answer = page.client.post(f"/api/runs/{RUN}/stop")
    assert answer.status_code == 400
    assert "nothing to stop" in answer.json()["error"]
    answer = page.client.post(f"/api/runs/{RUN}/continue")
    assert "the command that did continues it" in answer.json()["error"]


def test_a_run_that_the_studio_started_can_be_continued_even_by_a_later_studio(
    home: Path, running: "subprocess.Popen[str]"
) -> None:
    request = {"kind": "train", "dataset": "notes.txt", "hours": "0.02"}
    place = home / "texts"
    job = Job("0" * 16, "train", ["train"], home, running, place, request)  # type: ignore[arg-type]
    assert read_holder(home / "runs" / RUN / LOCK) == running.pid
    (listed,) = LiveRuns(home).list([job])
    assert listed["can_continue"] is False, "it still runs"
    running.kill()
    running.wait(SECONDS)

    later = LiveRuns(home)
    (listed,) = later.list([])
    assert listed["can_continue"] is True
    started = later.find_started(RUN)
    assert started.started_in == place, "notes.txt of another folder is another text"
    assert started.request.list_words() == [
        "train", "--quiet", "--json", "--dataset=notes.txt", "--hours=0.02",
    ]  # fmt: skip


def test_a_run_is_not_taken_for_that_of_an_older_process_of_the_same_number(
    home: Path, running: "subprocess.Popen[str]"
) -> None:
    begins = time.monotonic() + 100
    later = Job("0" * 16, "train", ["train"], home, running, home, {}, begins)  # type: ignore[arg-type]
    assert LiveRuns(home).list([later])[0]["can_continue"] is False
    assert json.loads(json.dumps(LiveRuns(home).list([])))[0]["run"] == RUN
    assert not (home / "studio" / "started.json").exists()
