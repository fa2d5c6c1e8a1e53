"""A disk that is full, read-only or slow: the last commit stays, the message says what to free, and
the work goes on.

On a small disk of its own, in memory (needs root, or user namespaces); the system calls' test
refuses at each write.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

SIZE_BYTES = 2 << 20

PROGRAM = """
import os, random, sys
from pathlib import Path
from lightlm.errors import CorruptError, StoreError
from lightlm.store.commit import commit_folder, open_commit, remove_folder, write_file
from lightlm.store.journal import Journal, read_journal

disk, remount, rng = Path(sys.argv[1]), sys.argv[2].split(), random.Random(int(sys.argv[3]))

def fill(value, size):
    def write(folder):
        (folder / "weights").write_bytes(bytes([value]) * size)
        (folder / "more").write_bytes(bytes([value]) * (size // 4))
        return {"value": value}
    return write

def expect(words, act):
    try:
        act()
    except StoreError as error:
        assert words in str(error), error
        return
    raise AssertionError(f"wanted a StoreError with {words!r}")

home = disk / "home"
commit_folder(home / "first", "sample", fill(1, 100_000))
write_file(home / "state", b"old")
journal = Journal(home / "journal")
journal.append({"n": 0}, durable=True)
refused = written = 0
for turn in range(200):
    size = rng.randrange(1000, 900_000)
    try:
        commit_folder(home / f"turn-{turn}", "sample", fill(2, size))
        written += 1
    except StoreError as error:
        assert "the disk is full" in str(error) and "lightlm store prune" in str(error), error
        refused += 1
        assert not (home / f"turn-{turn}").exists()
        assert not [p for p in home.iterdir() if p.name.startswith(".tmp-")], "room that was taken is given back"
    assert open_commit(home / "first").meta["value"] == 1
    if rng.random() < 0.3:
        for path in sorted(home.glob("turn-*")):
            open_commit(path)
            if rng.random() < 0.5:
                remove_folder(path)

def free():
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize

with (disk / "ballast").open("wb", buffering=0) as file:
    for block in (65536, 4096, 1):
        try:
            while True:
                file.write(b"b" * block)
        except OSError:
            pass
expect("the disk is full", lambda: write_file(home / "state", b"new" * 5000))
assert (home / "state").read_bytes() == b"old"
appended = 0
try:
    for appended in range(1, 5000):
        journal.append({"n": appended, "text": "x" * 100}, durable=True)
except StoreError as error:
    assert "the disk is full" in str(error), error
(disk / "ballast").unlink()
journal.append({"n": "after"}, durable=True)
journal.close()
numbers = [record["n"] for record, _ in read_journal(home / "journal")]
assert numbers == [*range(appended), "after"], numbers[-3:]
write_file(home / "state", b"new" * 5000)
commit_folder(home / "again", "sample", fill(3, 50_000))

import subprocess
subprocess.run([*remount, "remount,ro", str(disk)], check=True)
assert open_commit(home / "first").meta["value"] == 1
assert [r["n"] for r, _ in read_journal(home / "journal")] == numbers
for act in (
    lambda: commit_folder(home / "other", "sample", fill(4, 10)),
    lambda: write_file(home / "state", b"x"),
    lambda: remove_folder(home / "first"),
    lambda: Journal(home / "other.journal"),
):
    expect("make it writable or give another LIGHTLM_HOME", act)
assert open_commit(home / "first").meta["value"] == 1
print(written, refused, appended)
"""


def test_a_full_and_then_a_read_only_disk_keep_the_last_commit_and_say_what_to_do(
    tmp_path: Path,
    mount_disk: Callable[[int], tuple[Path, list[str]]],
    seed: int,
    tell: Callable[[str], None],
) -> None:
    disk, on_disk = mount_disk(SIZE_BYTES)
    (tmp_path / "program.py").write_text(PROGRAM)
    program = [sys.executable, str(tmp_path / "program.py"), str(disk), "mount -o", str(seed)]
    done = subprocess.run([*on_disk, *program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written, refused, appended = done.stdout.split()
    tell(
        f"{written} commits, {refused} refused for want of room, {appended} records until the "
        "disk was full; 0 lost"
    )
    assert int(refused) > 0
