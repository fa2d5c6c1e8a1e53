"""Tests of scratch folders: gone with their writer, left alone while it lives, and never a way out of their folder."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightlm.store.scratch import ABANDONED_SECONDS, TEMPORARY, TRASH, name_temporary, scratch_folder, sweep

HOLD = """
import sys, time
from pathlib import Path
from lightlm.store.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    print("held", flush=True)
    time.sleep(60)
"""


def age(path: Path) -> None:
    """Make a path look abandoned."""
    then = time.time() - ABANDONED_SECONDS - 10
    os.utime(path, (then, then), follow_symlinks=False)


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    (tmp_path / "parent").mkdir()
    return tmp_path / "parent"


def test_a_scratch_folder_is_private_and_gone_when_left(parent: Path) -> None:
    with scratch_folder(parent) as folder:
        assert folder.parent == parent
        assert folder.name.startswith(TEMPORARY)
        assert os.name == "nt" or folder.stat().st_mode & 0o777 == 0o700
    assert list(parent.iterdir()) == []


def test_a_scratch_folder_that_was_renamed_stays(parent: Path) -> None:
    with scratch_folder(parent) as folder:
        folder.rename(parent / "kept")
    assert [path.name for path in parent.iterdir()] == ["kept"]


def test_what_a_living_writer_fills_is_not_swept_and_what_a_dead_one_left_is(parent: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(parent)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    sweep(parent)
    assert [path.name for folder in parent.iterdir() for path in folder.iterdir()] == ["half"]
    process.kill()
    process.wait()
    process.stdout.close()
    sweep(parent)
    assert list(parent.iterdir()) == []


def test_trash_goes_whoever_made_it(parent: Path) -> None:
    (parent / f"{TRASH}0" / "inner").mkdir(parents=True)
    (parent / f"{TRASH}1").write_text("x")
    (parent / "kept").mkdir()
    sweep(parent)
    assert [path.name for path in parent.iterdir()] == ["kept"]


def test_a_temporary_file_goes_when_it_is_a_day_old(parent: Path) -> None:
    young, old = name_temporary(parent), name_temporary(parent)
    young.write_text("x")
    old.write_text("x")
    age(old)
    sweep(parent)
    assert list(parent.iterdir()) == [young]


def test_a_folder_named_after_a_living_process_stays_and_after_a_dead_one_goes(parent: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    ours, theirs = parent / f"{TEMPORARY}{os.getpid()}-abc", parent / f"{TEMPORARY}{dead.pid}-abc"
    ours.mkdir()
    theirs.mkdir()
    sweep(parent)
    assert list(parent.iterdir()) == [ours]


def test_a_link_to_nowhere_is_nobodys_leftover(parent: Path) -> None:
    link = parent / f"{TEMPORARY}link"
    link.symlink_to(parent / "nowhere")
    sweep(parent)
    assert link.is_symlink()


@pytest.mark.parametrize("prefix", [TEMPORARY, TRASH])
def test_a_link_does_not_lead_the_sweep_outside(tmp_path: Path, parent: Path, prefix: str) -> None:
    outside = tmp_path / "outside"
    (outside / "inner").mkdir(parents=True)
    (outside / "precious").write_text("x")
    for name, target in (("folder", outside), ("file", outside / "precious")):
        (parent / f"{prefix}{name}").symlink_to(target)
        age(parent / f"{prefix}{name}")
    age(outside)
    age(outside / "precious")
    sweep(parent)
    assert (outside / "precious").exists()
    assert (outside / "inner").exists()
