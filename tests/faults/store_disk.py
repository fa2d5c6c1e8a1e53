"""A disk that loses power: records what real code asks of it, and draws what may be there
afterwards.

Stricter than any real file system. Bytes that were not synced come back whole, in part, as garbage
or not at all; names that their folder was not synced for come back in any subset. Ideas: SQLite's
src/test6.c, and ALICE.
"""

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lightlm.store import disk

SYNCERS = frozenset({"sync_file", "sync_folder", "sync_written", "write_and_sync"})
"""What asks for a sync on behalf of its caller: the caller is the place that could forget it."""

Operation = tuple[Any, ...]
Tree = dict[str, "Tree | bytes"]


@dataclass(eq=False)
class File:
    """A file's bytes as a reader sees them, and as the disk has them for sure."""

    now: bytes = b""
    sure: bytes | None = None

    def draw(self, rng: random.Random) -> bytes:
        """Return what may be there after the power came back."""
        if self.now == self.sure:
            return self.now

        sure = self.sure or b""
        if sure and self.now.startswith(sure):  # appended to: what was synced stays
            tail = self.now[len(sure) :]
            return sure + rng.choice(
                (b"", tail, tail[: rng.randrange(len(tail) + 1)], bytes(len(tail)))
            )

        part = self.now[: rng.randrange(len(self.now) + 1)]
        return rng.choice(
            (sure, b"", self.now, part, bytes(len(self.now)), rng.randbytes(len(self.now)))
        )


@dataclass(eq=False)
class Folder:
    """A folder's names as a reader sees them, as the disk has them for sure, and what was asked
    since.
    """

    now: dict[str, "Folder | File"] = field(default_factory=dict)
    sure: dict[str, "Folder | File"] = field(default_factory=dict)
    asked: list[tuple[str | None, str | None, "Folder | File | None"]] = field(default_factory=list)

    def ask(self, gone: str | None, name: str | None, what: "Folder | File | None") -> None:
        """Take one name away, give another, or both at once (a rename)."""
        apply(self.now, gone, name, what)
        self.asked.append((gone, name, what))

    def draw(self, rng: random.Random) -> Tree:
        """Return what may be there after the power came back."""
        names = dict(self.sure)
        for gone, name, what in self.asked:
            if rng.random() < 0.5:
                apply(names, gone, name, what)
        return {name: what.draw(rng) for name, what in sorted(names.items())}

    def look(self) -> Tree:
        """Return what a reader sees now."""
        return {
            name: what.look() if isinstance(what, Folder) else what.now
            for name, what in self.now.items()
        }


def apply(
    names: dict[str, Folder | File], gone: str | None, name: str | None, what: Folder | File | None
) -> None:
    """Carry out one change of a folder's names."""
    if gone is not None:
        names.pop(gone, None)
    if name is not None and what is not None:
        names[name] = what


class Disk:
    """Carries out recorded operations, one by one."""

    def __init__(self) -> None:
        self.root = Folder()

    def find(self, path: str) -> Folder | File:
        """Return what stands at a path."""
        here: Folder | File = self.root
        for part in Path(path).parts:
            assert isinstance(here, Folder)
            here = here.now[part]
        return here

    def parent(self, path: str) -> Folder:
        """Return the folder that a path stands in."""
        found = self.find(str(Path(path).parent))
        assert isinstance(found, Folder)
        return found

    def do(self, operation: Operation) -> None:
        """Carry out one operation."""
        kind = operation[0]
        path = operation[1]
        name = Path(path).name

        if kind == "create":
            self.parent(path).ask(None, name, File())
        elif kind == "mkdir":
            self.parent(path).ask(None, name, Folder())
        elif kind == "write":
            found = self.find(path)
            assert isinstance(found, File)
            found.now = operation[2]
        elif kind == "unlink":
            self.parent(path).ask(name, None, None)
        elif kind == "rename":
            source = self.parent(path)
            target = self.parent(operation[2])
            what = self.find(path)
            if source is target:
                source.ask(name, Path(operation[2]).name, what)
            else:
                source.ask(name, None, None)
                target.ask(None, Path(operation[2]).name, what)
        elif kind == "fsync":
            found = self.find(path)
            if isinstance(found, File):
                found.sure = found.now
            else:
                found.sure = dict(found.now)
                found.asked = []


class Recorder:
    """Notes what the code inside `recording` does under `root`; the syncs of the place `forget` are
    left out.

    `places` are those that asked for a sync.
    """

    def __init__(self, root: Path, forget: str | None = None) -> None:
        self.root = root.resolve()
        self.forget = forget
        self.operations: list[Operation] = []
        self.places: set[str] = set()
        self.files = {
            str(p.relative_to(self.root)): p.read_bytes()
            for p in self.root.rglob("*")
            if p.is_file()
        }

    def relative(self, path: str | bytes | Path | int, folder: int = -1) -> str | None:
        """Return a path under the root; None for any other."""
        if isinstance(path, int):
            full = Path(f"/proc/self/fd/{path}").readlink()
        elif folder >= 0:
            full = Path(f"/proc/self/fd/{folder}").readlink() / os.fsdecode(path)
        else:
            full = Path(os.fsdecode(path)).absolute()
        return str(full.relative_to(self.root)) if full.is_relative_to(self.root) else None

    def absorb(self) -> None:
        """Note what was written since the last operation."""
        for name, known in list(self.files.items()):
            try:
                content = (self.root / name).read_bytes()
            except OSError:
                continue
            if content != known:
                self.files[name] = content
                self.operations.append(("write", name, content))

    def tell(self, *operation: Any) -> None:
        """Note something that is no operation: what the program promised."""
        self.absorb()
        self.operations.append(operation)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take what Python is about to ask of the operating system."""
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, int) or not isinstance(flags, int) or not flags & os.O_CREAT:
                return
            name = self.relative(path)
            if name is not None and not (self.root / name).exists():
                self.absorb()
                self.files[name] = b""
                self.operations.append(("create", name))
        elif (
            event == "os.mkdir" and (name := self.relative(arguments[0], arguments[2])) is not None
        ):
            if not (self.root / name).exists():
                self.absorb()
                self.operations.append(("mkdir", name))
        elif (
            event in ("os.remove", "os.rmdir")
            and (name := self.relative(arguments[0], arguments[1])) is not None
        ):
            if (self.root / name).exists():
                self.absorb()
                self.files.pop(name, None)
                self.operations.append(("unlink", name))
        elif event == "os.rename":
            source = self.relative(arguments[0], arguments[2])
            target = self.relative(arguments[1], arguments[3])
            if source is not None and target is not None:
                self.absorb()
                self.operations.append(("rename", source, target))
                for name in [n for n in self.files if n == source or n.startswith(source + os.sep)]:
                    self.files[target + name[len(source) :]] = self.files.pop(name)

    def sync(self, handle: int) -> None:
        """Stand in for os.fsync: nothing here needs to outlive this machine."""
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_name in SYNCERS:
            frame = frame.f_back
        place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name}"
        self.places.add(place)
        name = self.relative(handle)
        self.absorb()
        if place != self.forget and name is not None:
            self.operations.append(("fsync", name))


_heard: list[Callable[[str, tuple[Any, ...]], None]] = []
sys.addaudithook(lambda event, arguments: _heard[-1](event, arguments) if _heard else None)


@contextmanager
def recording(root: Path, forget: str | None = None) -> Iterator[Recorder]:
    """Give a recorder of what the code inside asks of the disk under `root`."""
    recorder = Recorder(root, forget)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk.os, "fsync", recorder.sync)
        busy = False

        def hear(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal busy
            if busy or event not in ("open", "os.mkdir", "os.remove", "os.rmdir", "os.rename"):
                return
            busy = True
            try:
                recorder.hear(event, arguments)
            finally:
                busy = False

        _heard.append(hear)
        try:
            yield recorder
        finally:
            _heard.pop()

    recorder.absorb()


def lay_out(tree: Tree, folder: Path) -> None:
    """Write a drawn state into an empty folder."""
    folder.mkdir()
    for name, content in tree.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            lay_out(content, folder / name)


def freeze(tree: Tree) -> tuple[Any, ...]:
    """Return a state as something that can be looked up; the random names of scratch folders do not
    tell them apart.
    """
    return tuple((n, c if isinstance(c, bytes) else freeze(c)) for n, c in sorted(tree.items()))
