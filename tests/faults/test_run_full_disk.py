"""A whole run on a disk that fills up at a random moment: what was committed stays, it says what to
free, and goes on.

On a small disk of its own, in memory (needs root, or user namespaces).
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .test_run_kills import NANO
from .test_run_kills import text as text  # the fixture

TRIALS = int(os.environ.get("FAULTS_DISKS", "4"))
"""Disks that fill up; FAULTS_DISKS=1 for a quick look."""

SIZE_BYTES = 224 << 20
STEPS = 300

PROGRAM = """
import json, os, subprocess, sys, time
from pathlib import Path
from lightlm.store.commit import open_commit
from lightlm.store.journal import read_journal

disk, remount = Path(sys.argv[1]), sys.argv[2].split()
command, moments = json.loads(sys.argv[3]), json.loads(sys.argv[4])

def start(home):
    return subprocess.Popen(command, env=os.environ | {"LIGHTLM_HOME": str(home)}, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

def run(home):
    process = start(home)
    out, err = process.communicate()
    return process.returncode, out, err

def fill():
    with (disk / "ballast").open("ab", buffering=0) as file:
        for block in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"b" * block)
            except OSError:
                pass

def verify(home):
    commits = [manifest.parent for manifest in home.rglob("manifest.json") if ".tmp-" not in str(manifest)]
    for folder in commits:
        open_commit(folder)
    for journal in home.rglob("*.journal"):
        list(read_journal(journal))
    return len(commits)

began = time.monotonic()
code, out, err = run(disk / "usual")
assert code == 0, err[-3000:]
usual = time.monotonic() - began
told = []
for number, fraction in enumerate(moments):
    home = disk / f"home-{number}"
    process = start(home)
    time.sleep(fraction * usual)
    fill()
    out, err = process.communicate()
    commits = verify(home) if home.exists() else 0
    is_told = "disk" in err and "full" in err
    assert process.returncode == 74 or (process.returncode == 0 and out), (fraction, process.returncode, err[-3000:])
    assert "Traceback" not in err, err[-3000:]
    if process.returncode:
        assert is_told and "free some space" in err, err[-1500:]
    (disk / "ballast").unlink()
    again, out, err = run(home)
    assert again == 0 and json.loads(out)["model_version"], (fraction, err[-3000:])
    assert len(list((home / "runs").iterdir())) <= 2
    verify(home)
    told.append([round(fraction, 2), process.returncode, commits])
    subprocess.run(["rm", "-rf", str(home)], check=True)
subprocess.run([*remount, "remount,ro", str(disk)], check=True)
code, out, err = run(disk / "usual")
assert code == 74 and "is not writable; give a folder that you can write to" in err, (code, err[-1500:])
assert "Traceback" not in err, err[-1500:]
print(json.dumps(told))
"""


@pytest.mark.timeout(1200)
def test_a_run_whose_disk_fills_up_keeps_what_was_committed_and_goes_on_when_there_is_room(
    tmp_path: Path,
    text: Path,
    mount_disk: Callable[[int], tuple[Path, list[str]]],
    draw: random.Random,
    tell: Callable[[str], None],
) -> None:
    disk, on_disk = mount_disk(SIZE_BYTES)
    values = NANO | {"budget.max_steps": STEPS, "training.num_checkpoints": 30}
    overrides = [
        word for name, value in values.items() for word in ("--set", f"{name}={json.dumps(value)}")
    ]
    lightlm = str(Path(sys.executable).with_name("lightlm"))
    command = [lightlm, "train", "--json", "--hours", "1", "--dataset", str(text), *overrides]
    moments = [(index + draw.random()) / TRIALS for index in range(TRIALS)]
    (tmp_path / "program.py").write_text(PROGRAM)
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW", "LIGHTLM"))
    }

    program = [
        sys.executable,
        str(tmp_path / "program.py"),
        str(disk),
        "mount -o",
        *map(json.dumps, (command, moments)),
    ]

    done = subprocess.run(
        [*on_disk, *program],
        capture_output=True,
        text=True,
        env=kept | {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"},
        check=False,
    )

    assert done.returncode == 0, done.stderr
    trials = json.loads(done.stdout)
    told = ", ".join(
        f"at {fraction:.0%} exit {code}, {commits} commits whole"
        for fraction, code, commits in trials
    )

    tell(
        f"full {told}; each went on to its version with room again; read-only: refused with what "
        "to do"
    )
