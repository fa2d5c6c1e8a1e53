"""Tests of the registry: names, what there is, and files that are checked before they
are opened.
"""

import hashlib
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightlm.errors import ModelVersionError, TrackingError
from lightlm.store.home import find_home
from lightlm.tracking.catalog import parse_model, resolve
from lightlm.tracking.registry import (
    ModelVersion,
    create_database,
    download,
    list_versions,
    open_client,
)
from lightlm.tracking.shipper import Shipper

LISTED = r"it has 3 \(challenger, champion\), 2, 1 \(previous\)"


@pytest.fixture
def register(home: Path, recorded: Callable[..., Path]) -> Callable[..., ModelVersion]:
    """Return a function that records a run, ships it, and gives its version."""

    def ship(key: str, **request: object) -> ModelVersion:
        shipper = Shipper(recorded(key, steps=1, **request), open_client(home), home)
        shipper.ship()
        assert shipper.state.version is not None
        return shipper.state.version

    return ship


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("models:/lightlm@champion", ("lightlm", "champion", None)),
        ("models:/my-model.2/17", ("my-model.2", None, "17")),
        ("models:/lightlm/latest", ("lightlm", None, "latest")),
        ("3", (None, None, "3")),
        ("previous", (None, "previous", None)),
        ("latest", (None, None, "latest")),
        ("other", ("other", None, None)),
    ],
)
def test_a_model_is_named_in_several_ways(written: str, meant: tuple) -> None:
    assert parse_model(written) == meant


@pytest.mark.parametrize(
    "written",
    [
        "",
        "models:/",
        "models:/a/b/c",
        "../x",
        "models:/../x",
        "models:/a@",
        "models:/a/0",
        "models:/lightlm@champion\n",
        "models:/lightlm/latest\n",
        "models:/-x/1",
        "models:/a/1/../../b",
        "a b",
        "\x1b[31m",
        "m\n",
        "%2e%2e",
    ],
)
def test_what_is_no_models_name_is_refused(written: str) -> None:
    with pytest.raises(ModelVersionError, match="names no registered model"):
        parse_model(written)


def test_without_any_model_a_person_is_told_to_train(home: Path, database: Path) -> None:
    with pytest.raises(
        ModelVersionError, match="no model is registered; run `lightlm train` first"
    ):
        resolve(home, "models:/lightlm@champion")
    database.unlink()
    for model in ("models:/lightlm@champion", "3", "models:/lightlm/latest"):
        with pytest.raises(ModelVersionError, match="run `lightlm train` first"):
            resolve(home, model)
    assert list_versions(home, "lightlm") == []
    assert not database.exists(), "asking creates nothing"


def test_versions_are_found_by_number_alias_and_latest(
    register: Callable[..., ModelVersion],
) -> None:
    first = register("run-1", bits_per_byte=1.5)
    second = register("run-2", bits_per_byte=1.6)
    third = register("run-3", bits_per_byte=1.4, beats="1")
    assert first.aliases == ("challenger", "champion")
    assert second.aliases == ("challenger",)
    assert [(v.version, v.aliases) for v in list_versions(find_home(), "lightlm")] == [
        ("3", ("challenger", "champion")),
        ("2", ()),
        ("1", ("previous",)),
    ]

    assert resolve(find_home(), "models:/lightlm@champion").version == third.version == "3"
    assert resolve(find_home(), "previous").version == "1"
    assert (
        resolve(find_home(), "2").version
        == resolve(find_home(), "models:/lightlm/2").version
        == "2"
    )
    assert resolve(find_home(), "lightlm").version == "3"
    assert resolve(find_home(), "models:/lightlm/latest").version == "3"
    assert second.tags["lightlm.promotion"].startswith("version 1 stays champion")
    assert resolve(find_home(), "2").tags["bits_per_byte"] == "1.6"

    for unknown, missing in (
        ("models:/lightlm/99", "no version 99"),
        ("models:/lightlm@nobody", "alias nobody"),
    ):
        with pytest.raises(ModelVersionError, match=f"{missing}; {LISTED}"):
            resolve(find_home(), unknown)

    for unknown in ("models:/other@champion", "models:/other/latest", "models:/other/1"):
        with pytest.raises(
            ModelVersionError, match="registered models: lightlm; run `lightlm train` first"
        ):
            resolve(find_home(), unknown)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def find_stored(home: Path, name: str) -> Path:
    (path,) = (home / "mlartifacts").rglob(f"model/{name}")
    return path


def test_a_version_is_cached_and_a_damaged_copy_is_fetched_again(
    home: Path, register: Callable[..., ModelVersion], model_folder: Path
) -> None:
    version = register("run-1")
    folder = download(home, version)
    assert folder == home / "models" / "lightlm" / "1"
    names = {path.name for path in model_folder.iterdir()}
    assert {path.name for path in folder.iterdir()} == names

    for damage in (flip, Path.unlink, lambda path: path.write_bytes(b"")):
        for name in ("model.safetensors", "manifest.json", "config.json"):
            damage(folder / name)
            assert download(home, version) == folder
            assert (folder / name).read_bytes() == (
                model_folder / name
            ).read_bytes() or name == "manifest.json"

    shutil.rmtree(home / "mlartifacts")
    assert download(home, version) == folder, "a sound copy needs no server"
    assert [path.name for path in folder.parent.iterdir()] == ["1"], "nothing is left beside it"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_changed_file_in_the_store_is_not_opened(
    home: Path, register: Callable[..., ModelVersion], name: str
) -> None:
    version = register("run-1")
    flip(find_stored(home, name))
    with pytest.raises(
        ModelVersionError, match=f"not as it was registered and is not opened.*{name}"
    ):
        download(home, version)
    assert not (home / "models" / "lightlm" / "1").exists()


def seal(table: dict[str, Any]) -> str:
    """Return a manifest with the digest that somebody would give it who knows how it is made."""
    said = {key: value for key, value in table.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    return json.dumps(said | {"sha256": digest}, indent=1, sort_keys=True)


def test_a_changed_file_with_a_manifest_to_match_is_not_opened(
    home: Path, register: Callable[..., ModelVersion]
) -> None:
    version = register("run-1")
    from lightlm.store.commit import hash_file

    config = find_stored(home, "config.json")
    manifest = find_stored(home, "manifest.json")
    flip(config)
    table = json.loads(manifest.read_bytes())
    table["files"]["config.json"]["sha256"] = hash_file(config)
    manifest.write_text(seal(table))
    with pytest.raises(ModelVersionError, match="the registry says"):
        download(home, version)

    table["files"]["../../stolen"] = table["files"].pop("config.json")
    manifest.write_text(seal(table))
    with pytest.raises(ModelVersionError, match="outside its folder"):
        download(home, version)
    manifest.unlink()
    with pytest.raises(ModelVersionError, match="not as it was registered"):
        download(home, version)

    assert not (home / "models" / "lightlm" / "1").exists()


def test_a_file_that_nobody_registered_is_not_opened(
    home: Path, register: Callable[..., ModelVersion]
) -> None:
    version = register("run-1")
    (find_stored(home, "config.json").parent / "modeling_evil.py").write_text("raise SystemExit")
    with pytest.raises(ModelVersionError, match=r"modeling_evil\.py is not in its manifest"):
        download(home, version)
    assert not (home / "models" / "lightlm" / "1").exists()


@pytest.mark.parametrize(
    ("name", "number"), [("../../x", "1"), ("lightlm", "../1"), ("a/b", "1"), ("lightlm", "")]
)
def test_a_server_cannot_choose_where_files_go(
    register: Callable[..., ModelVersion], name: str, number: str
) -> None:
    version = register("run-1").model_copy(update={"name": name, "version": number})
    with pytest.raises(ModelVersionError, match="is not opened"):
        download(find_home(), version)


def test_a_name_that_would_be_a_filter_is_refused() -> None:
    with pytest.raises(ModelVersionError, match="is no model's name"):
        list_versions(find_home(), "x' or name like '%")


def test_a_server_that_is_away_is_said_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://alice:sesame42@127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    asked = [
        lambda: resolve(find_home(), "models:/lightlm@champion"),
        lambda: resolve(find_home(), "latest"),
        lambda: list_versions(find_home(), "lightlm"),
    ]

    for ask in asked:
        with pytest.raises(
            TrackingError, match=rf"http://\[hidden\]@127.0.0.1:{port} cannot be reached"
        ) as caught:
            ask()
        assert "sesame42" not in str(caught.value)


def test_a_database_that_is_none_is_said(database: Path) -> None:
    database.write_bytes(b"this is no database" * 1000)
    with pytest.raises(TrackingError, match=r"mlflow\.db did not answer as expected"):
        resolve(find_home(), "models:/lightlm@champion")
    with pytest.raises(TrackingError):
        list_versions(find_home(), "lightlm")


def test_a_half_made_database_is_made_anew(home: Path) -> None:
    (home / ".mlflow.db.new").write_bytes(b"half")
    create_database(home)
    assert open_client(home).search_experiments()
    written = (home / "mlflow.db").stat().st_mtime_ns
    create_database(home)
    assert (home / "mlflow.db").stat().st_mtime_ns == written
