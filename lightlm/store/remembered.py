"""Small JSON files under LIGHTLM_HOME that may be damaged or deleted at any time.

There is one checked reader: content without the form that its reader states counts as absent.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from lightlm.errors import StoreError
from lightlm.json_object import JsonObject
from lightlm.store.commit import write_file

LONGEST_BYTES = 1 << 24
"""Bytes of such a file; the longest, 200 finished runs, has 200,000."""

Value = TypeVar("Value")


def parse_json(content: bytes | str) -> Any:
    """Return the value of a JSON text; None where it is none, too long, too deep, or holds NaN or
    an infinity.
    """
    if len(content) > LONGEST_BYTES:
        return None
    try:
        return json.loads(content, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def read_json(path: Path) -> Any:
    """Return the value that a file holds (see parse_json); None also where the file is missing or
    unreadable.
    """
    try:
        with path.open("rb") as file:
            return parse_json(file.read(LONGEST_BYTES + 1))
    except (OSError, ValueError):
        return None


def read_object(path: Path) -> JsonObject:
    """Return the JSON object that a file holds, empty where it holds none (see read_json)."""
    value = read_json(path)
    return value if isinstance(value, dict) else {}


def write_json(path: Path, value: Any) -> None:
    """Write a value for read_json; a disk that refuses ends no run, the value is forgotten.

    Nothing waits for the disk: on a slow one, three writes of 0.15 s each for each of five files
    came at the very end of a run.
    """
    with suppress(StoreError):
        write_file(path, json.dumps(value, allow_nan=False).encode(), durable=False)


def read_checked(path: Path, kind: TypeAdapter[Value]) -> Value | None:
    """Return what a file holds as a value of `kind`; None where it holds no such value."""
    try:
        with path.open("rb") as file:
            return kind.validate_json(file.read(LONGEST_BYTES + 1))
    except (OSError, ValueError, RecursionError):
        return None


class Remembered(Generic[Value]):
    """The last `most` values of one kind in a file, oldest first; what is damaged among them is
    left out.

    With `is_set` a value that is remembered again is there once.
    """

    def __init__(
        self, path: Path, kind: TypeAdapter[Value], most: int, *, is_set: bool = False
    ) -> None:
        self.path = path
        self.most = most
        self._kind = kind
        self._is_set = is_set

    def read(self) -> list[Value]:
        """Return the remembered values; none where there is no file or it is damaged."""
        found = read_json(self.path)
        return list(self._check(found if isinstance(found, list) else []))[-self.most :]

    def record(self, value: Value) -> None:
        """Remember one more value as the newest."""
        known = self.read()
        self.replace([*([one for one in known if one != value] if self._is_set else known), value])

    def replace(self, values: Iterable[Any]) -> None:
        """Remember these values alone; a disk that refuses ends no run."""
        checked = list(self._check(values))[-self.most :]
        write_json(self.path, [self._kind.dump_python(value, mode="json") for value in checked])

    def _check(self, values: Iterable[Any]) -> Iterable[Value]:
        for value in values:
            try:
                yield self._kind.validate_python(value)
            except (ValidationError, RecursionError):
                continue


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
