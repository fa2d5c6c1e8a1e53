"""Power loss at every moment of every protocol of the store: what was promised is there, whole, and
nothing else is.

The real code runs once and is recorded; then the power goes after each operation, many times, and
the real code reads what may be left. Whoever takes one fsync away fails here: the last test takes
each away in turn.
"""

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lightlm.errors import CorruptError, StoreError
from lightlm.store.commit import commit_folder, open_commit, publish_file, remove_folder, write_file
from lightlm.store.journal import Journal, read_journal

from .store_disk import Disk, Operation, Recorder, Tree, freeze, lay_out, recording

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="reads /proc to know open folders"
)

STATES = 12_000
FEWER = 60
"""States a moment for a run that must fail: it ends at the first violation."""

ABSENT = "absent"
Expected = dict[str, tuple[Any, ...]]


def write(value: int) -> Callable[[Path], Mapping[str, Any]]:
    """Return a writer of a commit whose files and meta tell `value`."""

    def fill(folder: Path) -> Mapping[str, Any]:
        (folder / "weights").write_bytes(bytes([value]) * 40)
        (folder / "inner").mkdir()
        (folder / "inner" / "text").write_text(f"value {value}")
        return {"value": value}

    return fill


def use_everything(root: Path, recorder: Recorder) -> None:
    """Go through every protocol of the store, telling what is promised at each moment."""
    promise = recorder.tell
    one = root / "store" / "kind" / "one"
    two = root / "store" / "kind" / "two"

    def commit(name: str, folder: Path, value: int) -> None:
        promise("promise", name, (ABSENT, value))
        commit_folder(folder, "sample", write(value))
        promise("promise", name, (value,))

    commit("store/kind/one", one, 1)
    commit("store/kind/two", two, 2)
    previous: Any = ABSENT

    for value in (b"first", b"second, longer"):
        promise("promise", "state.json", (previous, value))
        write_file(root / "state.json", value)
        promise("promise", "state.json", (value,))
        previous = value

    promise("promise", "made.db", (ABSENT, b"a database"))
    (root / "made.scratch").write_bytes(b"a database")
    publish_file(root / "made.scratch", root / "made.db")
    promise("promise", "made.db", (b"a database",))
    promise("promise", "store/kind/one", (ABSENT, 1))
    remove_folder(one)
    promise("promise", "store/kind/one", (ABSENT,))
    commit("store/kind/one", one, 3)
    append(root, recorder, 0, (False, True, False, False, True, False))
    append(root, recorder, 6, (False, True))


def append(root: Path, recorder: Recorder, first: int, durable: tuple[bool, ...]) -> None:
    """Open the journal, append records, close it."""
    journal = Journal(root / "run" / "journal.log")
    for number, is_durable in enumerate(durable, first):
        recorder.tell("appended", "run/journal.log", number + 1)
        journal.append({"number": number}, durable=is_durable)
        if is_durable:
            recorder.tell("durable", "run/journal.log", number + 1)
    journal.close()


def find_violation(
    root: Path, promises: Mapping[str, tuple[Any, ...]], records: Mapping[str, list[int]]
) -> str | None:
    """Return what is wrong with a disk after the power came back, judged by the store's own
    readers.
    """
    for name, allowed in promises.items():
        path = root / name
        found: Any = ABSENT
        try:
            if path.suffix:
                found = path.read_bytes()
            elif path.exists():
                found = open_commit(path, "sample").meta["value"]
                if (path / "weights").read_bytes() != bytes([found]) * 40:
                    found = "other weights"
        except FileNotFoundError:
            pass
        except CorruptError as error:
            found = f"corrupt: {error}"
        if found not in allowed:
            return f"{name} is {found!r}, promised was one of {allowed}"

    for name, (appended, durable) in records.items():
        numbers = [record["number"] for record, _ in read_journal(root / name)]
        if numbers != list(range(len(numbers))) or not durable <= len(numbers) <= appended:
            return f"{name} has records {numbers}; {durable} were durable, {appended} appended"

    return None


class Judge:
    """Draws states, and judges each different one once by the real code."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.drawn = 0
        self.number = 0
        self.known: dict[Any, str | None] = {}
        self.promises: Expected = {}
        self.records: dict[str, list[int]] = {}

    def note(self, operation: Operation) -> bool:
        """Take a promise; return whether it was one."""
        kind, name, *rest = operation
        if kind == "promise":
            self.promises[name] = rest[0]
        elif kind == "appended":
            self.records.setdefault(name, [0, 0])[0] = rest[0]
        elif kind == "durable":
            self.records[name][1] = rest[0]
        else:
            return False
        return True

    def judge(self, tree: Tree) -> str | None:
        """Return what is wrong with one state."""
        self.drawn += 1
        key = (freeze(tree), tuple(self.promises.items()), str(self.records))
        if key not in self.known:
            self.number += 1
            root = self.scratch / str(self.number)
            lay_out(tree, root)
            self.known[key] = find_violation(root, self.promises, self.records) or self.go_on(root)
            shutil.rmtree(root)
        return self.known[key]

    def go_on(self, root: Path) -> str | None:
        """Work on after the power came back; return what fails."""
        if self.number % 10:
            return None

        try:
            commit_folder(root / "store" / "kind" / "after", "sample", write(9))
            write_file(root / "state.json", b"after")
            journal = Journal(root / "run" / "journal.log")
            before = [record for record, _ in read_journal(journal.path)]
            journal.append({"number": len(before)})
            journal.close()
        except StoreError as error:
            return f"cannot go on: {error}"

        after = [record["number"] for record, _ in read_journal(root / "run" / "journal.log")]
        return (
            None
            if after == list(range(len(before) + 1))
            else f"after the records {before} stands {after}"
        )


@contextmanager
def fast_folder() -> Iterator[Path]:
    """Give a folder in memory where there is one: thousands of small trees are written."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def lose_power(
    operations: list[Operation], scratch: Path, rng: random.Random, each: int, first: int = 0
) -> tuple[int, int, list[str]]:
    """Lose power after each operation from `first` on, `each` times; return states, different ones,
    violations.
    """
    disk = Disk()
    judge = Judge(scratch)
    violations = []

    for index, operation in enumerate(operations):
        if not judge.note(operation):
            disk.do(operation)
        if index < first:
            continue
        for _ in range(each):
            wrong = judge.judge(disk.root.draw(rng))
            if wrong is not None:
                violations.append(f"after {operation[:2]}: {wrong}")
                if each == FEWER:
                    return judge.drawn, judge.number, violations

    return judge.drawn, judge.number, violations


def record(
    root: Path, program: Callable[[Path, Recorder], None], forget: str | None = None
) -> Recorder:
    """Run a program on a folder and return what it asked of the disk."""
    root.mkdir(exist_ok=True)
    with recording(root, forget) as recorder:
        program(root, recorder)
    return recorder


def commit_one(root: Path, recorder: Recorder) -> None:
    """Commit one folder, two floors below one that is there."""
    recorder.tell("promise", "store/kind/one", (ABSENT, 1))
    commit_folder(root / "store" / "kind" / "one", "sample", write(1))
    recorder.tell("promise", "store/kind/one", (1,))


def kill_and_repeat(scratch: Path, forget: str | None = None) -> Iterator[list[Operation]]:
    """Yield, for each moment at which a first process is killed, its operations and those of a
    second one.
    """
    first = record(scratch / "first", commit_one, forget).operations
    for moment in range(1, len(first)):
        disk = Disk()
        for operation in first[:moment]:
            if operation[0] != "promise":
                disk.do(operation)
        root = scratch / f"again-{moment}"
        lay_out(disk.root.look(), root)
        yield [*first[:moment], *record(root, commit_one, forget).operations]


def test_power_loss_at_any_moment_loses_nothing_that_was_promised(
    draw: random.Random, tell: Callable[[str], None]
) -> None:
    with fast_folder() as scratch:
        operations = record(scratch / "real", use_everything).operations
        each = -(-STATES // len(operations))
        drawn, different, violations = lose_power(operations, scratch, draw, each)
    tell(
        f"{len(operations)} moments, {drawn:,} states, {different:,} different, {len(violations)} "
        "violations"
    )
    assert drawn >= 10_000
    assert violations == []


def test_power_loss_after_a_kill_and_a_second_try_loses_nothing_that_was_promised(
    draw: random.Random, tell: Callable[[str], None]
) -> None:
    number = 0
    drawn = 0
    violations = []
    with fast_folder() as scratch:
        for number, operations in enumerate(kill_and_repeat(scratch), 1):
            (inner := scratch / f"judged-{number}").mkdir()
            states, _, wrong = lose_power(operations, inner, draw, 100, first=len(operations) - 1)
            drawn = drawn + states
            violations = violations + wrong
    tell(f"{number} kills, {drawn:,} states after the second try, {len(violations)} violations")
    assert violations == []


def test_every_fsync_is_needed(draw: random.Random, tell: Callable[[str], None]) -> None:
    with fast_folder() as scratch:
        places = (
            record(scratch / "real", use_everything).places
            | record(scratch / "one", commit_one).places
        )
        (again := scratch / "adopting").mkdir()
        record(again, commit_one)
        places |= record(again, commit_one).places
        unneeded = []
        for number, place in enumerate(sorted(places)):
            (inner := scratch / f"without-{number}").mkdir()
            operations = record(inner / "real", use_everything, place).operations
            if lose_power(operations, inner, draw, FEWER)[2]:
                continue
            if not any(
                lose_power(
                    operations,
                    Path(tempfile.mkdtemp(dir=inner)),
                    draw,
                    FEWER,
                    first=len(operations) - 1,
                )[2]
                for operations in kill_and_repeat(inner, place)
            ):
                unneeded.append(place)

    tell(
        f"{len(places)} places that sync; without any one of {len(places) - len(unneeded)} a "
        "commit is lost"
    )
    assert unneeded == []
    assert len(places) >= 12
