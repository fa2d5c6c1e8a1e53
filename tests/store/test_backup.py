"""Tests of backups: whole while others write, restored only where nothing is, and never from a
damaged archive.
"""

import io
import json
import sqlite3
import stat
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lightlm.errors import CorruptError, InputError
from lightlm.store.backup import CONTENTS, restore_backup, write_backup
from lightlm.store.commit import commit_folder, open_commit, remove_folder, write_file
from lightlm.store.journal import Journal, read_journal


def move_nothing(files: Path, old: Path, new: Path) -> None:
    """Leave paths as they are."""


def commit(folder: Path, content: str = "made") -> None:
    def write(scratch: Path) -> dict[str, str]:
        (scratch / "content").write_text(content)
        return {}

    commit_folder(folder, "sample", write)


@pytest.fixture
def filled(home: Path) -> Path:
    """A home with a commit, a database, a journal, a secret, and what belongs to processes."""
    commit(home / "store" / "samples" / "one")
    for name in (
        "service/secrets.json",
        "service/service.json",
        "store/.one.lock",
        "runs/a/worker.log",
        ".tmp-0123456789abcdef/x",
    ):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("private")

    (home / "service" / "secrets.json").chmod(0o600)
    with closing(sqlite3.connect(home / "mlflow.db")) as database, database:
        database.execute("CREATE TABLE numbers (a INTEGER, b INTEGER)")
    return home


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def test_a_restored_home_is_the_home_without_what_belongs_to_its_processes(
    filled: Path, elsewhere: Path
) -> None:
    file = filled.parent / "backup.tar"
    backup = write_backup(filled, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert restore_backup(file, elsewhere, move_nothing) == backup
    names = {
        path.relative_to(elsewhere).as_posix() for path in elsewhere.rglob("*") if path.is_file()
    }

    one = "store/samples/one/"
    assert names == {f"{one}content", f"{one}manifest.json", "service/secrets.json", "mlflow.db"}
    assert stat.S_IMODE((elsewhere / "service" / "secrets.json").stat().st_mode) == 0o600
    assert open_commit(elsewhere / "store" / "samples" / "one").kind == "sample"
    assert [path.name for path in file.parent.iterdir() if path.name.startswith(".tmp")] == []


@pytest.fixture
def writers(filled: Path) -> Iterator[list[int]]:
    """Two that write while a copy is made: a database's pairs that have to be equal, and
    a journal.
    """
    ended = threading.Event()
    written: list[int] = []

    def write() -> None:
        with (
            closing(sqlite3.connect(filled / "mlflow.db")) as database,
            closing(Journal(filled / "runs" / "a.journal")) as log,
        ):
            for number in range(100_000):
                with database:
                    database.execute("INSERT INTO numbers VALUES (?, 0)", (number,))
                    database.execute("UPDATE numbers SET b = a")
                    database.execute("DELETE FROM numbers WHERE a < ?", (number - 50,))
                log.append({"number": number})
                written.append(number)
                if ended.is_set():
                    return

    thread = threading.Thread(target=write)
    thread.start()
    yield written
    ended.set()
    thread.join()


def test_a_backup_is_whole_while_a_database_and_a_journal_are_written(
    filled: Path, elsewhere: Path, writers: list[int]
) -> None:
    while len(writers) < 5:
        time.sleep(0.001)
    write_backup(filled, filled.parent / "backup.tar")
    before = len(writers)
    restore_backup(filled.parent / "backup.tar", elsewhere, move_nothing)

    with closing(sqlite3.connect(elsewhere / "mlflow.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        count, equal = database.execute("SELECT count(*), sum(a = b) FROM numbers").fetchone()
        (newest,) = database.execute("SELECT max(a) FROM numbers").fetchone()

    assert count == equal > 0
    numbers = [record["number"] for record, _ in read_journal(elsewhere / "runs" / "a.journal")]
    assert numbers == list(range(len(numbers)))
    assert newest <= len(numbers) <= before + 1, (
        "the databases are copied before what they are told from"
    )


def test_a_commit_that_is_dropped_meanwhile_is_there_whole_or_not_at_all(
    filled: Path, elsewhere: Path, tmp_path: Path
) -> None:
    ended = threading.Event()

    def make_and_drop() -> None:
        while not ended.is_set():
            for number in range(20):
                commit(filled / "runs" / "a" / f"checkpoint-{number}")
            for number in range(20):
                remove_folder(filled / "runs" / "a" / f"checkpoint-{number}")

    thread = threading.Thread(target=make_and_drop)
    thread.start()
    try:
        for number in range(10):
            write_backup(filled, tmp_path / f"{number}.tar")
    finally:
        ended.set()
        thread.join()

    for number in range(10):
        home = elsewhere / str(number)
        home.mkdir()
        restore_backup(tmp_path / f"{number}.tar", home, move_nothing)
        for folder in (home / "runs" / "a").glob("checkpoint-*"):
            assert open_commit(folder).kind == "sample"
        assert open_commit(home / "store" / "samples" / "one")


def test_a_backup_overwrites_nothing_and_does_not_copy_itself(filled: Path) -> None:
    there = filled.parent / "there.tar"
    write_file(there, b"mine")
    with pytest.raises(InputError, match="is there already"):
        write_backup(filled, there)
    assert there.read_bytes() == b"mine"
    with pytest.raises(InputError, match="lies inside"):
        write_backup(filled, filled / "backup.tar")
    with pytest.raises(InputError, match=r"no .*missing to copy"):
        write_backup(filled / "missing", filled.parent / "backup.tar")


def test_a_home_that_holds_something_is_not_restored_over(filled: Path, elsewhere: Path) -> None:
    file = filled.parent / "backup.tar"
    write_backup(filled, file)
    (elsewhere / "mlflow.db").write_text("mine")
    with pytest.raises(
        InputError, match=r"is not empty \(mlflow.db\).*LIGHTLM_HOME=/new/folder lightlm restore"
    ):
        restore_backup(file, elsewhere, move_nothing)
    assert [path.name for path in elsewhere.iterdir()] == ["mlflow.db"]
    assert (elsewhere / "mlflow.db").read_text() == "mine"


def change(content: bytes) -> bytes:
    at = content.index(b"made")
    return content[:at] + b"MADE" + content[at + 4 :]


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (change, CorruptError),
        (lambda content: content[: len(content) // 2], InputError),
        (lambda content: content[:3], InputError),
        (lambda content: b"", InputError),
        (lambda content: content.replace(b'"format": 1', b'"format": 7'), InputError),
    ],
)
def test_a_damaged_archive_is_refused_and_leaves_the_home_empty(
    filled: Path, elsewhere: Path, damage: Callable[[bytes], bytes], error: type[Exception]
) -> None:
    file = filled.parent / "backup.tar"
    write_backup(filled, file)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(error, match="backup"):
        restore_backup(file, elsewhere, move_nothing)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["../out", "/tmp/out", "a/../../out", "link", "C:/out", "a\\..\\out"]
)
def test_an_archive_that_somebody_made_puts_nothing_outside_of_the_home(
    elsewhere: Path, name: str
) -> None:
    file = elsewhere.parent / "made.tar"
    with tarfile.open(file, "w") as archive:
        member = tarfile.TarInfo(name)
        if name == "link":
            member.type = tarfile.SYMTYPE
            member.linkname = "/etc/passwd"
        archive.addfile(member, io.BytesIO())
        contents = json.dumps({"format": 1, "home": "/", "files": {name: [0, ""]}}).encode()
        described = tarfile.TarInfo(CONTENTS)
        described.size = len(contents)
        archive.addfile(described, io.BytesIO(contents))

    with pytest.raises(InputError, match="is no file of a home"):
        restore_backup(file, elsewhere, move_nothing)
    assert list(elsewhere.iterdir()) == []
    assert not (elsewhere.parent / "out").exists()
