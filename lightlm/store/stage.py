"""Stage folders: the output of a stage, under the fingerprint of its inputs.

Each fingerprint has one builder in LIGHTLM_HOME/store, and others wait for it. A corrupt folder is
set aside and rebuilt.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightlm.errors import CorruptError
from lightlm.json_object import JsonObject
from lightlm.store.commit import SCHEMA, commit_folder, find_commit
from lightlm.store.disk import explain_refusals, make_folder
from lightlm.store.lock import hold_lock, ignore
from lightlm.store.shared import Shareable, find_shared
from lightlm.store.space import check_space
from lightlm.store.use import use_store


@dataclass(frozen=True)
class Stage:
    """A stage's committed folder; `reused` where an earlier run made it."""

    folder: Path
    fingerprint: str
    meta: JsonObject
    reused: bool


def fingerprint(kind: str, key: Mapping[str, Any]) -> str:
    """Return 16 hex digits that name what is made of `key`: SHA-256 of its canonical JSON.

    The manifest's schema is part of it: a folder of another version is not found, and made anew.
    """
    text = json.dumps([SCHEMA, kind, key], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def open_stage(
    home: Path,
    kind: str,
    key: Mapping[str, Any],
    build: Callable[[Path], Mapping[str, Any]],
    num_bytes: int = 0,
    *,
    shareable: Shareable | None = None,
    report: Callable[[str], None] = ignore,
) -> Stage:
    """Return the stage of `key`: as an earlier run left it, or built now by `build` (see
    commit_folder).

    `num_bytes` is what building will write, about; where the disk has no room for it, it does not
    begin. A `shareable` kind is looked for in the run's shared store as well before it is built,
    and goes there afterwards.

    Raises:
        StoreError: the disk refused, or has no room.
    """
    name = fingerprint(kind, key)
    folder = _stage_folder(home, kind, name)
    with hold_lock(folder.parent / f".{name}.lock", report=report):
        try:
            found = find_commit(folder, kind)
        except CorruptError as error:
            aside = set_aside(home, folder, kind)
            report(f"{error}; set aside as {aside} and made anew")
            found = None
        if found is not None:
            return Stage(folder, name, found.meta, reused=True)
        shared = find_shared() if shareable else None
        fetched = shared.fetch(kind, name, folder, shareable) if shared and shareable else None
        if fetched is not None:
            return Stage(folder, name, fetched.meta, reused=True)
        check_space(folder, num_bytes, f"making the {kind}")
        made = commit_folder(folder, kind, build)

    if shared:
        shared.publish(kind, name, folder)

    return Stage(folder, name, made.meta, reused=False)


def find_any(
    home: Path,
    kind: str,
    keys: Sequence[Mapping[str, Any]],
    shareable: Shareable,
    *,
    report: Callable[[str], None] = ignore,
) -> Stage | None:
    """Return the first stage of `keys` that is here and verifies, else the first that the shared
    store has.

    Raises:
        StoreError: one cannot be read at present.
    """
    found = next(filter(None, (find_stage(home, kind, key) for key in keys)), None)
    shared = find_shared()
    if found is not None or shared is None:
        return found
    for name in (fingerprint(kind, key) for key in keys):
        folder = _stage_folder(home, kind, name)
        with hold_lock(folder.parent / f".{name}.lock", report=report):
            fetched = None if folder.exists() else shared.fetch(kind, name, folder, shareable)
        if fetched is not None:
            return Stage(folder, name, fetched.meta, reused=True)
    return None


def find_stage(home: Path, kind: str, key: Mapping[str, Any]) -> Stage | None:
    """Return the stage of `key` if it is there and verifies. It changes nothing: it does not hold
    the lock.

    Raises:
        StoreError: it cannot be read at present.
    """
    name = fingerprint(kind, key)
    try:
        found = find_commit(_stage_folder(home, kind, name), kind)
    except CorruptError:
        return None
    return None if found is None else Stage(found.folder, name, found.meta, reused=True)


def _stage_folder(home: Path, kind: str, name: str) -> Path:
    use_store(home)
    return home / "store" / kind / name


def set_aside(home: Path, folder: Path, kind: str) -> Path:
    """Move a corrupt folder to quarantine; return where it is now. Only under the lock of whoever
    writes it.
    """
    aside = home / "store" / "quarantine" / f"{kind}-{folder.name}-{secrets.token_hex(3)}"
    with explain_refusals(aside):
        make_folder(aside.parent)
        folder.rename(aside)
    return aside
