"""Tests of stage folders: one build a key, shared, rebuilt when corrupt."""

import multiprocessing
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lightlm.errors import StoreError
from lightlm.store.commit import commit_folder
from lightlm.store.home import find_home
from lightlm.store.lock import hold_lock
from lightlm.store.stage import find_stage, fingerprint, open_stage


def build(folder: Path) -> Mapping[str, Any]:
    (folder / "content").write_text("made")
    return {"size": 4}


def race(log: str, barrier: Any, answers: Any) -> None:
    def build_slowly(folder: Path) -> Mapping[str, Any]:
        with Path(log).open("a") as file:
            file.write("built\n")
        return build(folder)

    barrier.wait()
    stage = open_stage(find_home(), "samples", {"key": 1}, build_slowly)
    answers.put((stage.fingerprint, stage.reused, (stage.folder / "content").read_text()))


def test_a_fingerprint_is_of_the_content_and_not_of_the_order() -> None:
    assert fingerprint("a", {"x": 1, "y": [2]}) == fingerprint("a", {"y": [2], "x": 1})
    assert (
        len({fingerprint("a", {"x": 1}), fingerprint("b", {"x": 1}), fingerprint("a", {"x": 2})})
        == 3
    )


def test_the_second_opening_reuses_the_first(home: Path) -> None:
    first = open_stage(home, "samples", {"key": 1}, build)
    before = (first.folder / "content").stat().st_mtime_ns
    second = open_stage(home, "samples", {"key": 1}, build)
    assert (first.reused, second.reused) == (False, True)
    assert second.meta == {"size": 4}
    assert (second.folder / "content").stat().st_mtime_ns == before
    assert first.folder.is_relative_to(home)


def test_a_stage_that_is_not_there_is_not_found() -> None:
    assert find_stage(find_home(), "samples", {"key": 2}) is None
    open_stage(find_home(), "samples", {"key": 2}, build)
    found = find_stage(find_home(), "samples", {"key": 2})
    assert found is not None
    assert found.reused


def test_a_corrupt_stage_is_set_aside_and_made_anew(home: Path) -> None:
    first = open_stage(home, "samples", {"key": 1}, build)
    (first.folder / "content").write_text("evil")
    said: list[str] = []
    again = open_stage(home, "samples", {"key": 1}, build, report=said.append)
    assert not again.reused
    assert (again.folder / "content").read_text() == "made"
    assert len(said) == 1
    assert "set aside" in said[0]
    aside = list((home / "store" / "quarantine").iterdir())
    assert [(path / "content").read_text() for path in aside] == ["evil"]


def test_a_stage_that_the_disk_has_no_room_for_is_not_begun() -> None:
    with pytest.raises(
        StoreError, match=r"making the samples will take about 1,000,000,000,000 MB"
    ):
        open_stage(find_home(), "samples", {"key": 3}, build, 10**18)
    assert find_stage(find_home(), "samples", {"key": 3}) is None
    open_stage(find_home(), "samples", {"key": 3}, build)
    assert open_stage(find_home(), "samples", {"key": 3}, build, 10**18).reused, (
        "what is there takes no room"
    )


@pytest.mark.timeout(60)
def test_eight_processes_on_one_cold_key_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(8)
    answers = context.Queue()
    log = tmp_path / "log"
    processes = [context.Process(target=race, args=(str(log), barrier, answers)) for _ in range(8)]
    for process in processes:
        process.start()

    got = [answers.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    assert log.read_text() == "built\n"
    assert {answer[2] for answer in got} == {"made"}
    assert len({answer[0] for answer in got}) == 1
    assert sorted(answer[1] for answer in got) == [False] + [True] * 7


def test_a_fingerprint_is_the_one_that_earlier_runs_left_their_folders_under() -> None:
    assert fingerprint("samples", {"name": "caf\u00e9", "sizes": [1, 2]}) == "924212305e6e2ccf"


def test_a_stage_says_where_it_is_and_what_it_is_of(home: Path) -> None:
    name = fingerprint("samples", {"key": 1})
    made = open_stage(home, "samples", {"key": 1}, build)
    again = open_stage(home, "samples", {"key": 1}, build)
    found = find_stage(home, "samples", {"key": 1})
    wanted = (home / "store" / "samples" / name, name, {"size": 4})
    for stage in (made, again, found):
        assert stage is not None
        assert (stage.folder, stage.fingerprint, stage.meta) == wanted


def test_a_folder_of_another_kind_under_a_stages_name_is_refused(home: Path) -> None:
    other = home / "store" / "samples" / fingerprint("samples", {"key": 1})
    commit_folder(other, "models", build)
    for use in (
        lambda: open_stage(home, "samples", {"key": 1}, build),
        lambda: find_stage(home, "samples", {"key": 1}),
    ):
        with pytest.raises(StoreError, match="holds a models, wanted a samples"):
            use()


def test_what_is_set_aside_keeps_its_kind_and_name(home: Path) -> None:
    first = open_stage(home, "samples", {"key": 1}, build)
    (first.folder / "content").write_text("evil")
    open_stage(home, "samples", {"key": 1}, build)
    (aside,) = (home / "store" / "quarantine").iterdir()
    assert re.fullmatch(rf"samples-{first.fingerprint}-[0-9a-f]{{6}}", aside.name)


def test_who_waits_for_a_stage_is_told(home: Path) -> None:
    name = fingerprint("samples", {"key": 1})
    said: list[str] = []
    lock = ExitStack()
    lock.enter_context(hold_lock(home / "store" / "samples" / f".{name}.lock"))

    def report(message: str) -> None:
        said.append(message)
        lock.close()

    open_stage(home, "samples", {"key": 1}, build, report=report)
    assert said == [f"waiting for process {os.getpid()}, which is making the same thing"]
