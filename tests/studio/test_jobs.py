"""Commands that the studio starts: results, errors, ends."""

from pathlib import Path

import psutil
import pytest

import lightlm.studio.jobs
from lightlm.errors import InputError
from lightlm.studio.jobs import Jobs
from tests.studio.conftest import SECONDS, Page


def wait_for_end(job: lightlm.studio.jobs.Job) -> None:
    job.process.wait(SECONDS)


def test_a_look_is_what_the_command_prints(page: Page, documents: Path) -> None:
    job = page.run(kind="look", dataset=str(documents))
    assert job["state"] == "done", job
    assert job["command"] == f"lightlm look -- {documents}"
    assert job["result"]["documents"] == 190
    assert job["result"]["exact_duplicates"] == 9


def test_a_command_that_fails_gives_its_own_words(page: Page) -> None:
    job = page.run(kind="look", dataset="/no/such/notes.txt")
    assert job["state"] == "failed"
    assert job["error"].startswith("/no/such/notes.txt does not exist")


def test_a_command_starts_where_its_paths_begin_and_in_the_studios_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    jobs = Jobs(Path("home"))
    job = jobs.start("report", ["report", "nothing"], started_in=tmp_path / "texts")
    wait_for_end(job)
    assert job.state == "failed"
    assert str(tmp_path / "home" / "runs") in job.describe()["error"]
    assert not (tmp_path / "texts" / "home").exists()
    assert Jobs(Path("home")).start("report", ["report", "--help"]).started_in == tmp_path

    (tmp_path / "texts").rmdir()
    with pytest.raises(InputError, match="texts, which is gone; start a new run"):
        jobs.start("train", ["train"], started_in=tmp_path / "texts")


def test_a_command_can_be_stopped_and_the_studios_end_stops_the_others(home: Path) -> None:
    jobs = Jobs(home)
    stopped = jobs.start("look", ["look", "--json", "python-docs"])
    jobs.stop(stopped.id)
    wait_for_end(stopped)
    assert stopped.state == "stopped"

    left = jobs.start("look", ["look", "--json", "python-docs"])
    jobs.close()
    assert not psutil.pid_exists(left.process.pid)


def test_commands_beyond_the_bound_are_refused(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lightlm.studio.jobs, "MOST_RUNNING", 0)
    answer = page.client.post("/api/jobs", json={"kind": "bases"})
    assert answer.status_code == 409
    assert "run already" in answer.json()["error"]


def test_the_output_of_old_commands_goes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lightlm.studio.jobs, "MOST_KEPT", 1)
    jobs = Jobs(home)
    first = jobs.start("version", ["--version"])
    wait_for_end(first)
    second = jobs.start("version", ["--version"])
    assert [path.name for path in jobs.folder.glob("[0-9a-f]*")] == [second.id]
    wait_for_end(second)
    assert second.state == "done"


def test_a_training_goes_on_when_the_studio_ends(home: Path) -> None:
    jobs = Jobs(home)
    training = jobs.start("train", ["train", "--quiet", "--dataset=/no/such/notes.txt"])
    jobs.close()
    assert not training.is_stopped
    wait_for_end(training)
    assert training.state == "failed"
    assert "does not exist" in training.describe()["error"]
