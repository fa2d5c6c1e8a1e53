"""A home that was restored elsewhere has its versions and files, and registers what had not been
told yet.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from lightlm.store.backup import restore_backup, write_backup
from lightlm.tracking.catalog import resolve
from lightlm.tracking.registry import download, open_client
from lightlm.tracking.relocation import relocate_artifacts
from lightlm.tracking.sync import sync


def move(home: Path, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore a backup of `home` as `to`, and take the home away."""
    write_backup(home, to.parent / "backup.tar")
    to.mkdir()
    restore_backup(
        to.parent / "backup.tar",
        to,
        lambda files, old, new: relocate_artifacts(files / "mlflow.db", old, new),
    )
    home.rename(home.with_name("away"))
    monkeypatch.setenv("LIGHTLM_HOME", str(to))
    # MLflow leaves the old home's database in this process's environment, for its children.
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_a_restored_home_has_its_versions_and_registers_what_was_pending(
    home: Path,
    recorded: Callable[..., Path],
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded("run-1", steps=3)
    sync(home)
    folder = recorded("run-2", steps=3)
    model_folder_of_run = folder / "model"
    model_folder_of_run.mkdir()
    for path in model_folder.iterdir():
        (model_folder_of_run / path.name).write_bytes(path.read_bytes())

    moved = tmp_path / "moved home"
    move(home, moved, monkeypatch)

    version = resolve(moved, "models:/lightlm@champion")
    fetched = download(moved, version)
    assert fetched.is_relative_to(moved)
    assert (fetched / "model.safetensors").read_bytes() == (
        model_folder / "model.safetensors"
    ).read_bytes()

    names = {artifact.path for artifact in open_client(moved).list_artifacts(version.run_id)}
    assert "plan.json" in names
    assert [one.version for one in sync(moved)] == ["models:/lightlm/2"]
    with closing(sqlite3.connect(moved / "mlflow.db")) as database:
        text = "\n".join(database.iterdump())
    paths = [line for line in text.splitlines() if f"{home}/mlartifacts" in line]
    assert paths == []


def test_only_paths_of_the_old_home_are_changed(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    values = [
        "file:///old",
        "file:///old/a",
        "/old/a",
        "file:///older/a",
        "see /old/a",
        "mlflow-artifacts:/old/a",
    ]

    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE runs (artifact_uri VARCHAR(200), name TEXT, step BIGINT)")
        database.executemany("INSERT INTO runs VALUES (?, 'x', 1)", [(value,) for value in values])

    assert relocate_artifacts(path, Path("/old"), Path("/new home")) == 3
    with closing(sqlite3.connect(path)) as database:
        found = [uri for (uri,) in database.execute("SELECT artifact_uri FROM runs ORDER BY rowid")]
    assert found == ["file:///new%20home", "file:///new%20home/a", "/new home/a", *values[3:]]
    assert relocate_artifacts(tmp_path / "missing.db", Path("/old"), Path("/new")) == 0
