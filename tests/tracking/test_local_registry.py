"""The registry read without MLflow: it says what MLflow itself says of the same database, or is not
used.
"""

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from lightlm.store.home import find_home
from lightlm.tracking.catalog import list_models, resolve
from lightlm.tracking.local_registry import LocalRegistry
from lightlm.tracking.registry import (
    create_database,
    describe,
    explain_failures,
    is_unknown,
    keep_write_ahead,
    list_versions,
    open_client,
    open_reader,
)


@pytest.fixture
def filled(home: Path) -> Path:
    """Return a home with two models, of which versions are deleted and renamed, and a prompt."""
    create_database(home)
    client = open_client(home)
    for name, number in (("notes", 3), ("poems", 1)):
        client.create_registered_model(name)
        for index in range(number):
            client.create_model_version(
                name,
                source=(home / "a").as_uri(),
                run_id=None,
                tags={"lightlm.manifest_sha256": "f" * 64},
            )
            client.set_model_version_tag(name, str(index + 1), "bits_per_byte", f"1.{index}")

    client.delete_model_version("notes", "1")
    client.set_registered_model_alias("notes", "champion", "3")
    client.set_registered_model_alias("notes", "previous", "2")
    client.create_registered_model("greeting")

    # As MLflow marks a prompt; its client keeps that to its own way of making one.
    with closing(sqlite3.connect(home / "mlflow.db")) as database, database:
        columns = "(workspace, name, key, value)"
        values = ("default", "greeting", "mlflow.prompt.is_prompt", "true")
        database.execute(f"INSERT INTO registered_model_tags {columns} VALUES (?, ?, ?, ?)", values)

    return home


def test_the_tables_read_alone_tell_what_mlflow_tells(filled: Path) -> None:
    local = LocalRegistry.load(filled / "mlflow.db")
    client = open_client(filled)
    assert local is not None
    assert isinstance(open_reader(filled), LocalRegistry)

    for name in ("notes", "poems", "absent"):
        ours = list_versions(find_home(), name, local)
        theirs = list_versions(find_home(), name, client)
        assert ours == theirs

    assert [version.version for version in list_versions(find_home(), "notes")] == ["3", "2"]
    assert list_versions(find_home(), "notes")[0].aliases == ("champion",)
    assert (
        describe(local.get_model_version("notes", "2")).tags
        == describe(client.get_model_version("notes", "2")).tags
    )

    assert [m.name for m in local.search_registered_models()] == [
        m.name for m in client.search_registered_models()
    ]
    assert resolve(find_home(), name="notes").version == "3"


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.get_model_version("notes", "1"),
        lambda client: client.get_model_version("absent", "1"),
        lambda client: client.get_model_version_by_alias("notes", "challenger"),
        lambda client: client.get_registered_model("absent"),
    ],
)
def test_what_is_not_there_is_unknown_to_both(ask: Callable[..., object], filled: Path) -> None:
    for client in (LocalRegistry.load(filled / "mlflow.db"), open_client(filled)):
        with pytest.raises(Exception) as raised, explain_failures(filled):
            ask(client)
        assert is_unknown(raised.value) or is_unknown(raised.value.__context__ or raised.value)


@pytest.mark.parametrize("content", [b"", b"no database at all", None])
def test_what_is_no_database_of_mlflow_is_left_to_mlflow(content: bytes | None, home: Path) -> None:
    path = home / "mlflow.db"
    if content is not None:
        path.write_bytes(content)
    assert LocalRegistry.load(path) is None


def test_listing_the_models_of_a_local_database_imports_no_mlflow(filled: Path) -> None:
    assert {model.name for model in list_models(find_home())} == {"notes", "poems"}
    code = "from lightlm.tracking.catalog import list_models; import sys; "
    code += "from lightlm.store.home import find_home; "
    code += "print(len(list_models(find_home())), 'mlflow' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == ["2", "False"]


READ_AS_GUEST = """
import os, sys
from pathlib import Path
from lightlm.tracking.local_registry import LocalRegistry
if os.geteuid() == 0:  # who may write anywhere
    os.setuid(65534)
local = LocalRegistry.load(Path(sys.argv[1]))
print(None if local is None else [one.name for one in local.search_registered_models()])
"""


@pytest.mark.skipif(os.name == "nt", reason="its folders are made read-only in another way")
@pytest.mark.parametrize(("log", "expected"), [(None, "['notes']"), (b"not yet in it", "None")])
def test_a_database_that_logs_ahead_is_read_where_no_log_can_be_made(
    log: bytes | None, expected: str
) -> None:
    """SQLite itself refuses it there: `lightlm models` of a home on a read-only disk."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "mlflow.db"
        with closing(sqlite3.connect(path)) as database, database:
            for table in ("registered_models", "registered_model_tags"):
                database.execute(f"CREATE TABLE {table} (name TEXT, key TEXT)")
            database.execute("CREATE TABLE registered_model_aliases (name, alias, version)")
            database.execute("CREATE TABLE model_version_tags (name, version, key, value)")
            database.execute(
                "CREATE TABLE model_versions (name, version, run_id, creation_time, current_stage)"
            )
            database.execute("INSERT INTO registered_models VALUES ('notes', '')")
        keep_write_ahead(folder)
        if log is not None:
            path.with_name("mlflow.db-wal").write_bytes(log)
        path.chmod(0o444)
        folder.chmod(0o555)
        ended = subprocess.run(
            [sys.executable, "-P", "-c", READ_AS_GUEST, str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        folder.chmod(0o700)

    assert ended.stdout.strip() == expected, ended.stderr
