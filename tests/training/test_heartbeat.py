"""Signs of life: what is waited for and what is given up, by a fake clock; then a real worker that
hangs.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest

from lightlm.training import heartbeat
from lightlm.training.heartbeat import (
    FIRST_STUCK_SECONDS,
    LATE_SECONDS,
    SILENT_SECONDS,
    STARTING_SECONDS,
    STUCK_FACTOR,
    STUCK_SECONDS,
    Watchdog,
)
from lightlm.training.supervisor import Worker, WorkerHung


class Job:
    """A watched job whose time is counted by hand."""

    def __init__(self, **arguments: Any) -> None:
        self.now = 0.0
        self.watch = Watchdog(arguments, lambda: self.now)

    def beat(self, seconds: float, standing: bool = False) -> str | None:
        """Beat for so long, at one place or at many; return what is said at the end."""
        for second in range(1, round(seconds) + 1):
            self.now += 1.0
            self.watch.take({"beat": float(second) if standing else 0.0})
        return self.watch.find_trouble()

    def be_silent(self, seconds: float) -> str | None:
        for _ in range(round(seconds)):
            self.now += 1.0
            self.watch.wait(1.0)
        return self.watch.find_trouble()


def test_silence_is_given_up_and_before_the_first_beat_much_later() -> None:
    job = Job()
    assert job.be_silent(STARTING_SECONDS) is None
    assert job.be_silent(1) == f"gave no sign of life for {STARTING_SECONDS + 1:.0f} s"
    job = Job()
    job.beat(5)
    assert job.be_silent(SILENT_SECONDS) is None
    assert job.be_silent(1) == f"gave no sign of life for {SILENT_SECONDS + 1:.0f} s"
    job.watch.take({"event": "StepDone"})
    assert job.watch.find_trouble() is None


def test_a_parent_that_slept_for_an_hour_gives_up_nothing() -> None:
    job = Job()
    job.beat(1)
    job.watch.wait(3600.0)
    assert job.watch.find_trouble() is None


def test_a_first_compilation_may_stand_still_for_longer_than_what_comes_after() -> None:
    assert Job().beat(FIRST_STUCK_SECONDS, standing=True) is None
    assert (
        Job().beat(FIRST_STUCK_SECONDS + 1, standing=True)
        == f"stood still for {FIRST_STUCK_SECONDS + 1:.0f} s"
    )
    job = Job()
    job.watch.take({"event": "StepDone"})
    assert job.beat(STUCK_SECONDS, standing=True) is None
    job = Job()
    job.watch.take({"event": "StepDone"})
    assert (
        job.beat(STUCK_SECONDS + 1, standing=True) == f"stood still for {STUCK_SECONDS + 1:.0f} s"
    )


def test_what_is_allowed_grows_with_the_steps() -> None:
    for seconds, is_given_up in ((2 * STUCK_SECONDS, False), (2 * STUCK_SECONDS + 1, True)):
        job = Job()
        job.watch.take({"event": "StepDone"})
        job.beat(2 * STUCK_SECONDS / STUCK_FACTOR, standing=True)
        job.beat(1)
        assert (job.beat(seconds, standing=True) is not None) == is_given_up


@pytest.mark.parametrize("deadline", [100.0, -1000.0])
def test_past_its_deadline_a_job_that_only_looks_busy_is_given_up(deadline: float) -> None:
    job = Job(deadline=deadline)
    assert job.beat(max(0.0, deadline) + LATE_SECONDS) is None
    trouble = job.beat(1)
    assert trouble is not None
    assert trouble.endswith("of its deadline")


def test_a_job_of_so_many_steps_has_no_deadline() -> None:
    assert Job(deadline=100.0, trainer={"max_steps": 5}).beat(100 * LATE_SECONDS) is None


def test_a_worker_in_a_call_that_never_returns_is_killed_and_its_stack_is_in_the_log(
    make_request: Callable[..., Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "FIRST_STUCK_SECONDS", 2.0)
    (tmp_path / "shards").mkdir()
    # whoever opens it waits for its other end, as on a dead disk
    os.mkfifo(tmp_path / "shards" / "manifest.json")
    request = make_request(shards_folder=tmp_path / "shards")

    with Worker(request.run_folder) as worker:
        with pytest.raises(
            WorkerHung, match=r"stood still for .* s and was killed; .* in .*worker\.log"
        ):
            list(worker.stream("train", **request.model_dump(mode="json")))
        assert "in open_shards" in worker.log.read_text()
        assert worker.call("describe_devices")["devices"]
