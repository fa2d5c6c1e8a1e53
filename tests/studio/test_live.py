"""Runs as the page sees them: whoever started them."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightlm.child_process import python_command
from lightlm.process_identity import describe_process
from lightlm.studio.jobs import TRAINING, Jobs, Training
from lightlm.studio.live import LiveRuns
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


def remember(home: Path, holder: str, place: Path) -> None:
    """Keep a training as the studio that starts it does."""
    folder = home / "studio" / "jobs" / ("0" * 16)
    folder.mkdir(parents=True)
    request = {"kind": "train", "dataset": "notes.txt", "hours": "0.02"}
    training = Training(holder=holder, request=request, started_in=place)
    (folder / TRAINING).write_text(training.model_dump_json())


def test_a_run_of_the_studio_can_be_continued_even_if_no_page_has_seen_it_run(
    home: Path, running: "subprocess.Popen[str]"
) -> None:
    place = home / "texts"
    remember(home, describe_process(running.pid), place)
    running.kill()
    running.wait(SECONDS)

    later = LiveRuns(home, Jobs(home))
    started = later.find_started(RUN)
    assert started.started_in == place, "notes.txt of another folder is another text"
    assert started.request.list_words() == [
        "train", "--quiet", "--json", "--dataset=notes.txt", "--hours=0.02",
    ]  # fmt: skip
    assert later.list()[0]["can_continue"] is True


def test_a_run_that_goes_on_is_not_continued(home: Path, running: "subprocess.Popen[str]") -> None:
    remember(home, describe_process(running.pid), home)
    assert LiveRuns(home, Jobs(home)).list()[0]["can_continue"] is False


def test_a_run_is_not_taken_for_that_of_another_process_of_the_same_number(
    home: Path, running: "subprocess.Popen[str]"
) -> None:
    remember(home, f"{running.pid} another-boot:1", home)
    running.kill()
    running.wait(SECONDS)
    assert LiveRuns(home, Jobs(home)).list()[0]["can_continue"] is False
    assert not (home / "studio" / "started.json").exists()
