"""What a model's name stood for, remembered while MLflow's local database is unchanged: importing
MLflow takes seconds.

Owns LIGHTLM_HOME/resolved.json, which may be deleted at any time. A name is asked for again after
any change there.
"""

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from lightlm.errors import StoreError
from lightlm.store.commit import write_file
from lightlm.store.remembered import read_json

FILE = "resolved.json"

SETTLED_SECONDS = 2.0
"""A database that was written a moment ago may be written again within the same tick of its file's
time.
"""

Value = TypeVar("Value")

COUNTER = slice(24, 28)
"""Of SQLite's header: how often the file was changed. Source:
sqlite.org/fileformat2.html, 1.3.7.
"""


def recall(home: Path, model: str, kind: TypeAdapter[Value], ask: Callable[[], Value]) -> Value:
    """Return what `ask` said of `model` when the database under `home` was as it is now, or says
    now.
    """
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
    with contextlib.suppress(StoreError):
        write_file(home / FILE, json.dumps({"database": state, "versions": remembered}).encode())

    return found


def read_state(home: Path) -> list[Any] | None:
    """Return what every change of the database changes; None where it was changed just now, or is
    not there.
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
