"""What a model's name stood for, remembered while MLflow's local database is unchanged: importing MLflow takes seconds.

Owns LIGHTLM_HOME/resolved.json, which may be deleted at any time. A name is asked for again after any change there.
"""

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightlm.errors import StoreError
from lightlm.store.commit import write_file

FILE = "resolved.json"

SETTLED_SECONDS = 2.0
"""A database that was written a moment ago may be written again within the same tick of its file's time."""

COUNTER = slice(24, 28)
"""Of SQLite's header: how often the file was changed. Source: sqlite.org/fileformat2.html, 1.3.7."""


def recall(home: Path, model: str, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what `ask` said of `model` when the database under `home` was as it is now, or says now."""
    state = read_state(home)
    remembered: dict[str, Any] = {}
    if state is not None:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            content = json.loads((home / FILE).read_bytes())
            if content["database"] == state:
                remembered = dict(content["versions"])
    if isinstance(known := remembered.get(model), dict):
        return known
    found = ask()
    if state is not None:
        with contextlib.suppress(OSError, StoreError):
            write_file(home / FILE, json.dumps({"database": state, "versions": remembered | {model: found}}).encode())
    return found


def read_state(home: Path) -> list[Any] | None:
    """Return what every change of the database changes; None where it was changed just now, or is not there."""
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
