"""Every system call of every protocol of the store, one by one: the process is killed there, or the
disk refuses there.

strace injects the fault (strace 5 or newer; without it these are skipped). No --seccomp-bpf: it
breaks injection.
"""

import ctypes
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lightlm.errors import CorruptError, LightLMError, StoreError
from lightlm.store.commit import commit_folder, open_commit, publish_file, remove_folder, write_file
from lightlm.store.disk import explain_refusals
from lightlm.store.home import find_home
from lightlm.store.journal import Journal, read_journal
from lightlm.store.stage import open_stage

STRACE = shutil.which("strace")
pytestmark = [
    pytest.mark.skipif(STRACE is None, reason="needs strace (apt-get install strace)"),
    pytest.mark.timeout(600),
]

FILE_CALLS = frozenset(
    "open openat creat read pread64 write pwrite64 close fsync fdatasync mkdir mkdirat rmdir "
    "rename renameat renameat2 "
    "unlink unlinkat stat lstat fstat newfstatat statx access faccessat faccessat2 getdents64 "
    "flock lseek ftruncate "
    "statfs fstatfs readlink readlinkat copy_file_range sendfile chmod fchmod".split()
)
"""What a disk can refuse. Other calls (memory, signals) are only killed at."""

ERRORS = ("EIO", "ENOSPC")
DONE = 0
REFUSED = 3
BROKEN = 4
PTRACER = 0x59616D61
ANYBODY = -1


@dataclass(frozen=True)
class Protocol:
    """`prepare` makes what was there before, `act` is what is disturbed; `look` gives what a reader
    then finds.
    """

    name: str
    prepare: Callable[[Path], object]
    act: Callable[[Path], object]
    look: Callable[[Path], object]
    before: object
    after: object
    is_undone: bool = False
    """Whether a refusal promises that what was there before is there still."""


def write(value: int) -> Callable[[Path], Mapping[str, Any]]:
    """Return a writer of a commit that tells `value`."""

    def fill(folder: Path) -> Mapping[str, Any]:
        (folder / "weights").write_bytes(bytes([value]) * 5000)
        (folder / "inner").mkdir()
        (folder / "inner" / "text").write_text(f"value {value}")
        return {"value": value}

    return fill


def look_at_commit(root: Path) -> object:
    """Return the value of the commit, None where there is none; a corrupt one is an error."""
    try:
        return open_commit(root / "kind" / "one", "sample").meta["value"]
    except CorruptError:
        raise
    except StoreError:
        return None


def look_at_file(root: Path) -> object:
    """Return the file's content, None where there is none."""
    path = root / "kind" / "file"
    return path.read_bytes() if path.exists() else None


def look_at_journal(root: Path) -> object:
    """Return the records' numbers."""
    return tuple(record["n"] for record, _ in read_journal(root / "journal"))


def append(*numbers: int) -> Callable[[Path], None]:
    """Return what opens a journal and appends durable records."""

    def act(root: Path) -> None:
        journal = Journal(root / "journal")
        for number in numbers:
            journal.append({"n": number}, durable=True)
        journal.close()

    return act


def commit(value: int) -> Callable[[Path], object]:
    """Return what commits a folder that tells `value`."""
    return lambda root: commit_folder(root / "kind" / "one", "sample", write(value))


def flip(root: Path) -> None:
    """Commit a stage and damage a byte of it."""
    (stage_folder(root, 1) / "weights").write_bytes(b"damaged")


def stage_folder(root: Path, value: int) -> Path:
    """Return the folder of a stage whose LIGHTLM_HOME is `root`."""
    os.environ["LIGHTLM_HOME"] = str(root)
    return open_stage(find_home(), "samples", {"key": 1}, write(value)).folder


def look_at_stage(root: Path) -> object:
    """Return the value of the only stage, None where there is none, "damaged" where it is to be
    made anew.
    """
    found = list((root / "store" / "samples").glob("[!.]*"))
    try:
        return open_commit(found[0], "samples").meta["value"] if found else None
    except CorruptError:
        return "damaged"


def publish(root: Path) -> None:
    """Write a file as another library would, and publish it."""
    with explain_refusals(root):
        (root / "kind" / "scratch").write_bytes(b"new")
    publish_file(root / "kind" / "scratch", root / "kind" / "file")


def nothing(root: Path) -> None:
    """Prepare nothing."""


def old_file(root: Path) -> None:
    """Prepare a file with old content."""
    write_file(root / "kind" / "file", b"old")


PROTOCOLS = (
    Protocol("commit_folder", nothing, commit(1), look_at_commit, None, 1, is_undone=True),
    Protocol("commit_folder, second", commit(1), commit(2), look_at_commit, 1, 1),
    Protocol(
        "remove_folder",
        commit(1),
        lambda r: remove_folder(r / "kind" / "one"),
        look_at_commit,
        1,
        None,
    ),
    Protocol(
        "write_file",
        old_file,
        lambda r: write_file(r / "kind" / "file", b"new"),
        look_at_file,
        b"old",
        b"new",
    ),
    Protocol("publish_file", old_file, publish, look_at_file, b"old", b"new"),
    Protocol("journal", append(1, 2), append(3, 4), look_at_journal, (1, 2), (1, 2, 3, 4)),
    Protocol("open_stage", nothing, lambda r: stage_folder(r, 1), look_at_stage, None, 1),
    Protocol(
        "open_stage, corrupt", flip, lambda r: stage_folder(r, 2), look_at_stage, "damaged", 2
    ),
    Protocol(
        "open_commit", commit(1), lambda r: open_commit(r / "kind" / "one"), look_at_commit, 1, 1
    ),
)


def run_traced(act: Callable[[Path], object], root: Path, *options: str) -> tuple[int, str]:
    """Run `act` in a child process under strace; return its exit status (negative: the signal) and
    the trace.
    """
    child = os.fork()
    if child == 0:
        status = BROKEN
        try:
            ctypes.CDLL(None).prctl(PTRACER, ANYBODY, 0, 0, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            os.getppid()  # from here on it is the protocol
            act(root)
            os.getppid()
            status = DONE
        except LightLMError:
            os.getppid()
            status = REFUSED
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent is told
            (root.parent / "broken").write_text(repr(error))
        finally:
            os._exit(status)

    os.waitpid(child, os.WUNTRACED)
    trace = root.parent / "trace"
    command = [str(STRACE), "-p", str(child), "-o", str(trace), *options]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    line = tracer.stderr.readline()
    os.kill(child, signal.SIGCONT)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    tracer.stderr.close()
    tracer.wait()
    if "attached" not in line:
        pytest.skip(f"strace may not trace here: {line.strip()}")

    return status, trace.read_text(errors="replace")


def list_calls(trace: str) -> list[tuple[str, int]]:
    """Return each call of the protocol with how many of its name there were up to it."""
    counts: dict[str, int] = {}
    calls = []
    inside = 0

    for line in trace.splitlines():
        found = re.match(r"(\w+)\(", line)
        if not found:
            continue
        name = found[1]
        counts[name] = counts.get(name, 0) + 1
        if name == "getppid":
            inside += 1
        elif inside == 1:
            calls.append((name, counts[name]))

    return calls


def list_faults(calls: list[tuple[str, int]]) -> Iterator[tuple[str, str]]:
    """Yield each fault's name and strace's option for it."""
    for name, number in calls:
        yield f"kill at {name} {number}", f"inject={name}:signal=KILL:when={number}"
        if name in FILE_CALLS:
            for error in ERRORS:
                yield f"{error} at {name} {number}", f"inject={name}:error={error}:when={number}"


def find_violation(protocol: Protocol, root: Path, status: int) -> str | None:
    """Return what is wrong after a fault; None if nothing is."""
    if status == BROKEN:
        return f"it ended with {(root.parent / 'broken').read_text()}"
    if status not in (DONE, REFUSED, -signal.SIGKILL):
        return f"it ended with {status}"

    found = protocol.look(root)
    between = (
        [(1, 2, 3)] if protocol.name == "journal" else [None] if "corrupt" in protocol.name else []
    )
    allowed = [protocol.after] if status == DONE else [protocol.before, protocol.after, *between]
    if status == REFUSED and protocol.is_undone:
        allowed = [protocol.before]

    if found not in allowed:
        return f"ended with {status}, found {found!r}, wanted one of {allowed}"
    if protocol.name == "journal":
        return None

    protocol.act(root)
    if protocol.look(root) != protocol.after:
        return f"a second try finds {protocol.look(root)!r}"

    left = [path.name for path in root.rglob(".tmp-*") if path.is_dir()]
    return (
        f"a second try leaves behind: {left}"
        if left and protocol.before != protocol.after
        else None
    )


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_a_fault_at_any_system_call_loses_nothing_and_breaks_nothing(
    protocol: Protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tell: Callable[[str], None]
) -> None:
    monkeypatch.setenv("LIGHTLM_HOME", str(tmp_path / "home"))
    number = 0

    def fresh() -> Path:
        nonlocal number
        number += 1
        root = tmp_path / f"{number}" / "root"
        (root / "kind").mkdir(parents=True)
        protocol.prepare(root)
        return root

    protocol.act(fresh())  # what Python does once only is done here
    status, trace = run_traced(protocol.act, fresh())
    assert status == DONE
    calls = list_calls(trace)
    faults = list(list_faults(calls))
    hits = 0
    violations = []

    for name, option in faults:
        root = fresh()
        status, trace = run_traced(protocol.act, root, "-e", option)
        hits += "INJECTED" in trace or status == -signal.SIGKILL
        wrong = find_violation(protocol, root, status)
        if wrong is not None:
            violations.append(f"{name}: {wrong}")
        shutil.rmtree(root.parent)

    tell(
        f"{len(calls)} system calls, {len(faults)} faults, {hits} of them hit, {len(violations)} "
        "violations"
    )
    assert not violations, "\n".join(violations)
    assert hits >= 0.98 * len(faults), "memory is asked for now and then; files are not"


def test_a_slow_disk_only_takes_its_time(tmp_path: Path, tell: Callable[[str], None]) -> None:
    calls = "fsync,write,rename,mkdir,openat"
    for protocol in PROTOCOLS[:6]:
        root = tmp_path / protocol.name / "root"
        (root / "kind").mkdir(parents=True)
        protocol.prepare(root)
        status, _ = run_traced(protocol.act, root, "-e", f"inject={calls}:delay_enter=20000")
        assert status == DONE
        assert protocol.look(root) == protocol.after
    tell(f"6 protocols, 20 ms more for each of {calls}")
