"""The registry read without MLflow: it says what MLflow itself says of the same database, or is not
used.
"""

import sqlite3
import subprocess
import sys
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
