"""Eight processes on one cold cache, twenty times: one build. And a holder that is killed: the next
takes over.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lightlm.store.home import find_home
from lightlm.store.stage import open_stage

PROCESSES = 8
RACES = 20
KILLS = 5
TAKEOVER_SECONDS = 2.0

CONTEXT = multiprocessing.get_context("fork")


def race(number: int, log: str, barrier: Any, answers: Any) -> None:
    """Open one stage with all the others; the builder leaves a line."""

    def build(folder: Path) -> Mapping[str, Any]:
        with Path(log).open("a") as file:
            file.write("built\n")
        (folder / "content").write_text("made")
        time.sleep(0.05)
        return {"size": 4}

    barrier.wait()
    stage = open_stage(find_home(), "samples", {"race": number}, build)
    answers.put((str(stage.folder), stage.reused, (stage.folder / "content").read_text()))


@pytest.mark.parametrize("number", range(RACES))
def test_of_eight_processes_on_one_cold_key_one_builds_and_all_get_it(
    number: int, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    barrier = CONTEXT.Barrier(PROCESSES)
    answers = CONTEXT.Queue()
    log = tmp_path / "log"
    processes = [
        CONTEXT.Process(target=race, args=(number, str(log), barrier, answers))
        for _ in range(PROCESSES)
    ]

    for process in processes:
        process.start()
    got = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert log.read_text() == "built\n"
    assert len({answer[0] for answer in got}) == 1
    assert {answer[2] for answer in got} == {"made"}
    assert sorted(answer[1] for answer in got) == [False] + [True] * (PROCESSES - 1)
    if number == RACES - 1:
        tell(f"{RACES} races of {PROCESSES} processes: one build each")


def hold(pipe: Any) -> None:
    """Begin to build, say so, and never end."""

    def build(folder: Path) -> Mapping[str, Any]:
        (folder / "half").write_text("half")
        pipe.send(("building", time.monotonic()))
        time.sleep(600)
        return {}

    open_stage(find_home(), "samples", {"key": "held"}, build)


def wait(pipe: Any) -> None:
    """Open the same stage; send each message, and when its own build begins."""

    def build(folder: Path) -> Mapping[str, Any]:
        pipe.send(("building", time.monotonic()))
        (folder / "whole").write_text("whole")
        return {}

    stage = open_stage(
        find_home(),
        "samples",
        {"key": "held"},
        build,
        report=lambda message: pipe.send(("said", message)),
    )
    pipe.send(("made", sorted(path.name for path in stage.folder.parent.iterdir())))


def test_a_waiter_takes_over_within_two_seconds_of_the_holders_death(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tell: Callable[[str], None]
) -> None:
    took = []
    for number in range(KILLS):
        monkeypatch.setenv("LIGHTLM_HOME", str(tmp_path / f"home-{number}"))
        (ours, theirs), (our_second, their_second) = CONTEXT.Pipe(), CONTEXT.Pipe()
        holder = CONTEXT.Process(target=hold, args=(theirs,))
        holder.start()
        assert ours.recv()[0] == "building"
        waiter = CONTEXT.Process(target=wait, args=(their_second,))
        waiter.start()
        kind, message = our_second.recv()
        assert kind == "said"
        assert message == f"waiting for process {holder.pid}, which is making the same thing"
        killed = time.monotonic()
        os.kill(holder.pid or 0, signal.SIGKILL)
        kind, began = our_second.recv()
        assert kind == "building"
        took.append(began - killed)
        made = our_second.recv()[1]
        assert not [name for name in made if name.startswith(".tmp-")], (
            "what the dead one left is swept"
        )
        waiter.join()
        holder.join()

    tell(f"{KILLS} holders killed; taken over after {max(took):.2f} s at most")
    assert max(took) <= TAKEOVER_SECONDS
