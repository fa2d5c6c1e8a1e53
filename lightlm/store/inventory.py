"""The inventory of LIGHTLM_HOME: each entry with its kind, size and age; verified, or pruned.

Pruning removes entries that can be made or fetched again and that no process uses. Runs, records
and databases stay.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lightlm.errors import BusyError, StoreError
from lightlm.store.commit import MANIFEST, open_commit, remove_folder
from lightlm.store.disk import explain_refusals, list_tree
from lightlm.store.lock import hold_lock
from lightlm.store.scratch import is_scratch, sweep
from lightlm.store.use import claim_store

RUN = "run"
COPY = "model copy"
DAMAGED = "damaged"
LEFTOVER = "leftover"
OTHER = "other"
STORE = "store"
RUNS = "runs"
MODELS = "models"
QUARANTINE = "quarantine"

OTHERS = ("mlflow.db", "mlartifacts", "prefect", "cache", "studio")
"""Folders of MLflow, Prefect, the compiler and the studio: listed with their sizes,
and left alone.
"""


@dataclass(frozen=True)
class Item:
    """A thing under LIGHTLM_HOME. `used_at` in seconds since 1970; stages have the kind of their
    stage.
    """

    path: Path
    kind: str
    num_bytes: int
    used_at: float

    @property
    def is_stage(self) -> bool:
        """Whether a run can make it again from its data."""
        return self.kind not in (RUN, COPY, DAMAGED, LEFTOVER, OTHER)

    @property
    def age_days(self) -> float:
        """Days since it was last used."""
        return max(0.0, time.time() - self.used_at) / 86_400


def list_items(home: Path) -> list[Item]:
    """Return all that stands under `home`, by kind, the newest first.

    Raises:
        StoreError: it cannot be listed.
    """
    with explain_refusals(home):
        found = [_describe(path, kind) for path, kind in _find(home)]
    return sorted(
        (item for item in found if item is not None), key=lambda item: (item.kind, -item.used_at)
    )


def verify_item(item: Item, *, is_quick: bool = False) -> list[str]:
    """Return what is wrong with an item, a sentence each; what is swept or removed meanwhile is no
    damage.

    `is_quick` reads the manifests alone.
    """
    problems = []
    for folder in _find_commits(item):
        try:
            open_commit(folder, verify=not is_quick)
        except StoreError as error:
            if folder.exists():
                problems.append(str(error))
    return problems


def prune(
    home: Path, is_needed: Callable[[Item], bool], *, is_dry: bool = False
) -> tuple[list[Item], list[tuple[Item, str]]]:
    """Remove what can be had again and is not needed; return what went, and what had to stay with
    why.

    Stages, and copies of registered models, go only while no other process uses the store. With
    `is_dry` nothing goes.

    Raises:
        StoreError: the disk refused.
    """
    gone: list[Item] = []
    stays: list[tuple[Item, str]] = []
    with explain_refusals(home), claim_store(home) as is_alone:
        for item in list_items(home):
            if item.kind in (RUN, OTHER) or (
                item.kind not in (DAMAGED, LEFTOVER) and is_needed(item)
            ):
                continue
            if not is_alone and item.kind not in (DAMAGED, LEFTOVER):
                stays.append((item, "another process uses the store"))
                continue
            try:
                if not is_dry:
                    _remove(item)
            except BusyError as error:
                stays.append((item, str(error)))
            else:
                if is_dry or not item.path.exists():
                    gone.append(item)

    return gone, stays


def _remove(item: Item) -> None:
    if item.kind == LEFTOVER:
        sweep(item.path.parent)
    elif item.is_stage:
        with hold_lock(lock_of(item.path), wait=False):
            remove_folder(item.path)
    else:
        remove_folder(item.path)


def lock_of(stage: Path) -> Path:
    """Return the lock of a stage's folder; its time is that of the stage's last use."""
    return stage.parent / f".{stage.name}.lock"


def _find(home: Path) -> Iterator[tuple[Path, str]]:
    """Yield each thing's path and kind."""
    for kind in _folders(home / STORE):
        for path in _entries(kind):
            if is_scratch(path.name):
                yield path, LEFTOVER
            elif kind.name == QUARANTINE:
                yield path, DAMAGED
            elif path.is_dir() and not path.is_symlink():
                yield path, kind.name

    for run in _folders(home / RUNS):
        yield run, RUN
    for name in _folders(home / MODELS):
        for path in _entries(name):
            yield path, LEFTOVER if is_scratch(path.name) else COPY

    for name in OTHERS:
        if (home / name).exists():
            yield home / name, OTHER


def _folders(parent: Path) -> list[Path]:
    """Return the folders of a folder; a link is not followed, wherever it leads."""
    return [path for path in _entries(parent) if path.is_dir() and not path.is_symlink()]


def _entries(parent: Path) -> Sequence[Path]:
    return sorted(parent.iterdir()) if parent.is_dir() and not parent.is_symlink() else []


def _describe(path: Path, kind: str) -> Item | None:
    """Return the item at a path; None if it went meanwhile."""
    num_bytes = 0
    with suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            for inner in list_tree(path):
                with suppress(FileNotFoundError):
                    num_bytes += 0 if inner.is_dir() else inner.lstat().st_size
        else:
            num_bytes = path.lstat().st_size

    lock = lock_of(path)
    try:
        return Item(path, kind, num_bytes, (lock if lock.exists() else path).lstat().st_mtime)
    except FileNotFoundError:
        return None


def _find_commits(item: Item) -> list[Path]:
    if item.is_stage or item.kind == COPY:
        return [item.path]
    if item.kind == RUN:
        return sorted(
            path.parent
            for path in item.path.rglob(MANIFEST)
            if not any(is_scratch(part) for part in path.relative_to(item.path).parts)
        )
    return []
