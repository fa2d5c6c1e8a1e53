"""A cache of resolved model names, valid while MLflow's local database is unchanged.

It saves importing MLflow, which takes seconds. LIGHTLM_HOME/resolved.json may be deleted any time.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from lightlm.store.remembered import read_json, write_json

FILE = "resolved.json"

SETTLED_SECONDS = 2.0
"""Seconds after which a write shows in a file's time: two may fall into one tick of its clock."""

Value = TypeVar("Value")

COUNTER = slice(24, 28)
"""Bytes of SQLite's header with the file's change counter (sqlite.org/fileformat2.html, 1.3.7)."""


def recall(home: Path, model: str, kind: TypeAdapter[Value], ask: Callable[[], Value]) -> Value:
    """Return what `ask` returned for `model` when the database was as it is now, or asks now."""
    state = read_state(home)
    if state is None:
        return ask()

    content = read_json(home / FILE)
    is_current = isinstance(content, dict) and content.get("database") == state
    versions = content.get("versions") if is_current else None
    remembered = versions if isinstance(versions, dict) else {}
    with contextlib.suppress(ValidationError, RecursionError):
        return kind.validate_python(remembered.get(model))

    found = ask()
    remembered |= {model: kind.dump_python(found, mode="json")}
    write_json(home / FILE, {"database": state, "versions": remembered})

    return found


def read_state(home: Path) -> list[Any] | None:
    """Return a value that every change of the database changes; None where it is too new to
    tell, or missing.
    """
    state: list[Any] = []
    try:
        with (home / "mlflow.db").open("rb") as file:
            state.append(file.read(100)[COUNTER].hex())
        for name in ("mlflow.db", "mlflow.db-wal"):
            path = home / name
            if name.endswith("-wal") and not (path.exists() and path.stat().st_size):
                continue
            found = path.stat()
            if not 0 <= time.time() - found.st_mtime < SETTLED_SECONDS:
                state.append([found.st_ino, found.st_size, found.st_mtime_ns])
            else:
                return None
    except OSError:
        return None

    return state
