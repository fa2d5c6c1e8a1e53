"""Tests of remembered names: asked for once, and again after any change of the database."""

import os
import sqlite3
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from lightlm.tracking.resolved import FILE, read_state, recall

OLD = 1_700_000_000


@pytest.fixture
def database(tmp_path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(tmp_path / "mlflow.db")
    connection.execute("create table versions (name text)")
    connection.commit()
    age(tmp_path)
    return connection


def age(home: Path) -> None:
    for path in home.glob("mlflow.db*"):
        os.utime(path, (OLD, OLD))


def ask(home: Path, model: str, asked: list[str]) -> dict[str, str]:
    def answer() -> dict[str, str]:
        asked.append(model)
        return {"version": str(len(asked))}

    return recall(home, model, TypeAdapter(dict[str, str]), answer)


def test_an_unchanged_database_is_asked_once_for_each_name(
    database: sqlite3.Connection, tmp_path: Path
) -> None:
    asked: list[str] = []
    said = [ask(tmp_path, model, asked)["version"] for model in ("a", "b", "a", "b")]
    assert (asked, said) == (["a", "b"], ["1", "2", "1", "2"])


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_after_a_change_it_is_asked_anew_even_where_size_and_time_are_as_before(
    database: sqlite3.Connection, tmp_path: Path, journal: str
) -> None:
    database.execute(f"pragma journal_mode={journal}")
    database.commit()
    age(tmp_path)
    asked: list[str] = []
    for _ in range(2):
        ask(tmp_path, "a", asked)

    size = (tmp_path / "mlflow.db").stat().st_size
    database.execute("insert into versions values ('b')")
    database.commit()
    age(tmp_path)
    assert (tmp_path / "mlflow.db").stat().st_size == size
    assert ask(tmp_path, "a", asked)["version"] == "2"


def test_a_database_changed_this_moment_is_not_remembered(
    database: sqlite3.Connection, tmp_path: Path
) -> None:
    os.utime(tmp_path / "mlflow.db")
    asked: list[str] = []
    for _ in range(2):
        ask(tmp_path, "a", asked)
    assert asked == ["a", "a"]
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"database": 1}',
        b"\xff",
        b'{"database": null, "versions": 3}',
        b"[" * 100_000,
    ],
)
def test_a_broken_memory_is_none(
    database: sqlite3.Connection, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / FILE).write_bytes(content)
    asked: list[str] = []
    assert ask(tmp_path, "a", asked) == ask(tmp_path, "a", asked) == {"version": "1"}


def test_without_a_database_nothing_is_remembered(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
