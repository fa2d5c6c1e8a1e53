import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from lightlm.store.template import copy_template, keep_template, name_template


@pytest.fixture(autouse=True)
def own_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "installation"))


def make_database(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE places (name TEXT)")
        database.execute("INSERT INTO places VALUES ('here')")
        database.commit()
    return path


def read_places(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return [name for (name,) in database.execute("SELECT name FROM places")]


def test_without_a_kept_database_none_is_copied(tmp_path: Path) -> None:
    assert not copy_template("mlflow", tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()


def test_a_database_that_was_kept_once_is_there_for_each_new_home(tmp_path: Path) -> None:
    keep_template("mlflow", make_database(tmp_path / "first.db"))
    assert copy_template("mlflow", tmp_path / "second.db")
    assert read_places(tmp_path / "second.db") == ["here"]
    assert stat.S_IMODE((tmp_path / "second.db").stat().st_mode) == 0o600
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.skipif(os.name == "nt", reason="it has no such permissions")
def test_another_user_of_the_installation_reads_it(tmp_path: Path) -> None:
    keep_template("mlflow", make_database(tmp_path / "first.db"))
    assert stat.S_IMODE(name_template("mlflow").stat().st_mode) == 0o644


DELETED = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("CREATE TABLE places (name TEXT)")
database.execute("PRAGMA journal_mode=WAL")
database.execute("INSERT INTO places VALUES ('old')")
database.commit()
os._exit(0)
"""


def test_the_log_that_a_deleted_database_left_is_not_taken_for_the_new_ones(
    tmp_path: Path,
) -> None:
    keep_template("mlflow", make_database(tmp_path / "first.db"))
    deleted = tmp_path / "second.db"
    subprocess.run([sys.executable, "-c", DELETED, deleted], check=True)
    assert (tmp_path / "second.db-wal").stat().st_size > 0
    deleted.unlink()
    assert copy_template("mlflow", deleted)
    assert read_places(deleted) == ["here"]


def test_what_it_says_of_its_first_home_is_changed_in_the_copy_alone(tmp_path: Path) -> None:
    keep_template("mlflow", make_database(tmp_path / "first.db"))
    copy_template("mlflow", tmp_path / "second.db", {"UPDATE places SET name = ?": ("there",)})
    assert read_places(tmp_path / "second.db") == ["there"]
    assert read_places(name_template("mlflow")) == ["here"]


def test_a_database_that_is_there_stays(tmp_path: Path) -> None:
    keep_template("mlflow", make_database(tmp_path / "first.db"))
    own = make_database(tmp_path / "own.db")
    assert not copy_template("mlflow", own, {"UPDATE places SET name = ?": ("there",)})
    assert read_places(own) == ["here"]


def test_a_kept_database_that_is_damaged_is_not_copied(tmp_path: Path) -> None:
    keep_template("mlflow", make_database(tmp_path / "first.db"))
    name_template("mlflow").write_bytes(b"no database" * 1000)
    assert not copy_template("mlflow", tmp_path / "second.db")
    assert not (tmp_path / "second.db").exists()


def test_where_the_installation_cannot_be_written_none_is_kept(tmp_path: Path) -> None:
    (tmp_path / "installation").write_text("no folder")
    keep_template("mlflow", make_database(tmp_path / "first.db"))
    assert not copy_template("mlflow", tmp_path / "second.db")
