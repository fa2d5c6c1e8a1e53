"""Tests of the inventory: what stands there is listed, verified and pruned; what is used, locked or
a link stays.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lightlm.store.commit import commit_folder
from lightlm.store.inventory import Item, list_items, lock_of, prune, verify_item
from lightlm.store.lock import hold_lock

MAKE = """
import sys, time
from lightlm.store.home import find_home
from lightlm.store.stage import open_stage
def build(folder):
    (folder / "content").write_text("made")
    return {}
for name in sys.argv[2:]:
    open_stage(find_home(), "samples", {"name": name}, build)
print("made", flush=True)
time.sleep(float(sys.argv[1]))
"""


@contextmanager
def maker(*names: str, seconds: float = 0.0) -> Iterator[None]:
    """Make stages in another process, which goes on for some seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAKE, str(seconds), *names], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "made\n"
    if not seconds:
        process.wait()

    try:
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def nobody(item: Item) -> bool:
    return False


def commit_at(folder: Path) -> Path:
    def write(scratch: Path) -> dict[str, int]:
        (scratch / "content").write_bytes(b"x" * 1000)
        return {}

    return commit_folder(folder, "sample", write).folder


def kinds(home: Path) -> list[str]:
    return sorted(item.kind for item in list_items(home))


def test_an_empty_home_has_nothing(home: Path) -> None:
    assert list_items(home) == []
    assert prune(home, nobody) == ([], [])


def test_everything_is_listed_by_kind_with_its_size(home: Path) -> None:
    with maker("a", "b"):
        pass
    commit_at(home / "runs" / "20260101-000000-abcdef" / "model")
    commit_at(home / "models" / "lightlm" / "1")
    commit_at(home / "store" / "quarantine" / "samples-0123")
    (home / "store" / "samples" / ".trash-0123456789abcdef").mkdir()
    (home / "mlflow.db").write_bytes(b"d" * 10)
    assert kinds(home) == [
        "damaged",
        "leftover",
        "model copy",
        "other",
        "run",
        "samples",
        "samples",
    ]

    sizes = {item.kind: item.num_bytes for item in list_items(home)}
    assert sizes["other"] == 10
    assert sizes["run"] > 1000
    assert all(item.age_days < 1 for item in list_items(home))


def test_damage_is_found_in_stages_runs_and_copies(home: Path) -> None:
    with maker("a"):
        pass
    commit_at(home / "runs" / "one" / "checkpoints" / "step-1")
    commit_at(home / "models" / "lightlm" / "1")
    assert [problem for item in list_items(home) for problem in verify_item(item)] == []
    for path in home.rglob("content"):
        path.write_bytes(b"y" * path.stat().st_size)
    problems = [problem for item in list_items(home) for problem in verify_item(item)]
    assert len(problems) == 3
    assert all("SHA-256" in problem for problem in problems)


def test_a_commit_that_a_living_run_is_writing_is_not_called_damaged(home: Path) -> None:
    commit_at(home / "runs" / "one" / "model")
    half = home / "runs" / "one" / ".tmp-0123456789abcdef"
    half.mkdir()
    (half / "manifest.json").write_text("{")
    (run,) = list_items(home)
    assert list(verify_item(run)) == []


def test_pruning_takes_what_can_be_had_again_and_leaves_runs_and_databases(home: Path) -> None:
    with maker("a"):
        pass
    commit_at(home / "runs" / "one" / "model")
    commit_at(home / "models" / "lightlm" / "1")
    commit_at(home / "store" / "quarantine" / "samples-0123")
    (home / "store" / "samples" / ".trash-0123456789abcdef").mkdir()
    (home / "mlflow.db").write_bytes(b"d")
    foreseen, _ = prune(home, nobody, is_dry=True)
    assert len(kinds(home)) == 6, "a dry run takes nothing"
    gone, stays = prune(home, nobody)
    assert sorted(item.path for item in gone) == sorted(item.path for item in foreseen)
    assert sorted(item.kind for item in gone) == ["damaged", "leftover", "model copy", "samples"]
    assert stays == []
    assert kinds(home) == ["other", "run"]


def test_what_is_needed_stays(home: Path) -> None:
    with maker("a", "b"):
        pass
    needed = list_items(home)[0]
    gone, _ = prune(home, lambda item: item.path == needed.path)
    assert len(gone) == 1
    assert [item.path for item in list_items(home)] == [needed.path]


def test_nothing_is_taken_from_under_a_process_that_uses_the_store(home: Path) -> None:
    with maker("a", seconds=60):
        gone, stays = prune(home, nobody)
        assert gone == []
        assert [why for _, why in stays] == ["another process uses the store"]
    assert len(prune(home, nobody)[0]) == 1, "it ended, killed as it was"


def test_a_locked_stage_stays(home: Path) -> None:
    with maker("a"):
        pass
    stage = list_items(home)[0].path
    with hold_lock(lock_of(stage)):
        gone, stays = prune(home, nobody)
    assert gone == []
    assert "holds" in stays[0][1]
    assert stage.exists()


@pytest.mark.parametrize("parent", ["store/samples", "models/lightlm", "runs"])
def test_a_link_is_not_followed(home: Path, tmp_path: Path, parent: str) -> None:
    outside = commit_at(tmp_path / "outside" / "precious")
    (home / parent).mkdir(parents=True)
    (home / parent / "link").symlink_to(outside)
    prune(home, nobody)
    assert (outside / "content").exists()


def test_a_linked_store_is_left_alone(home: Path, tmp_path: Path) -> None:
    outside = commit_at(tmp_path / "outside" / "kind" / "precious")
    (home / "store").symlink_to(tmp_path / "outside")
    assert list_items(home) == []
    prune(home, nobody)
    assert (outside / "content").exists()
