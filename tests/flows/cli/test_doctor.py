"""The doctor: content with a home that works, and each kind of trouble named with what to do."""

import importlib.metadata
import json
import os
from pathlib import Path

import pytest

from lightlm.store.commit import commit_folder
from lightlm_flows.cli.checks import installation, servers, storage
from lightlm_flows.service.servers import open_secrets
from tests.command_line import Trained


def write_stage(home: Path) -> Path:
    """Return a file of a stage in the store."""

    def write(folder: Path) -> dict[str, str]:
        (folder / "text.bin").write_bytes(b"what was written")
        return {}

    return commit_folder(home / "store" / "subsets" / "abc", "subsets", write).folder / "text.bin"


def test_where_a_model_was_trained_nothing_fails(trained: Trained) -> None:
    ended = trained.lightlm("doctor", "--json")
    found = {check["name"]: check for check in ended.json["checks"]}
    assert ended.json["num_failed"] == 0
    names = (
        "LightLM Packages Export torch Bytecode Python Memory Disk Home Secrets Store Service "
        "MLflow Versions "
        "Prefect Hub Clock"
    )

    assert found.keys() >= set(names.split())
    assert "1 model" in found["MLflow"]["message"]
    assert "answers in" in found["Prefect"]["message"]
    assert "every file as it was written" in found["Store"]["message"]
    assert all(check["fix"] for check in found.values() if check["status"] != "pass")


def test_a_package_that_breaks_prefect_unseen_is_named_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = ["fastapi<0.1", "numpy>=2", "no-such-thing>=1", "other-thing; extra == 'export'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: wanted)
    first, second = installation.check_packages()
    assert first.status == second.status == "fail"
    assert "wanted <0.1; Prefect's API does not start" in first.message
    assert first.fix is not None and "pip install 'fastapi<0.1'" in first.fix
    assert "no-such-thing is missing" in second.message


def test_packages_within_their_bounds_are_one_line() -> None:
    (line,) = installation.check_packages()
    assert line.status == "pass"
    assert f"fastapi {importlib.metadata.version('fastapi')}" in line.message


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_passwords_and_a_home_that_others_can_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "mine"
    home.mkdir(mode=0o700)
    open_secrets(home)
    assert storage.check_secrets(home).status == storage.check_home(home).status == "pass"
    home.chmod(0o755)
    assert storage.check_home(home).fix == f"chmod 700 {home}"
    (tmp_path / ".env").write_text("PREFECT_PASSWORD=x", encoding="utf-8")
    (tmp_path / ".env").chmod(0o640)
    open_one = storage.check_secrets(home)
    assert (open_one.status, open_one.fix) == ("fail", "chmod 600 .env")


def test_a_stored_file_that_changed_is_named(tmp_path: Path) -> None:
    stored = write_stage(tmp_path)
    assert storage.check_store(tmp_path).status == "pass"
    stored.write_bytes(b"what was writteN")
    damaged = storage.check_store(tmp_path)
    assert damaged.status == "fail"
    assert "text.bin" in damaged.message


def test_a_large_store_is_looked_at_by_its_manifests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "QUICK_BYTES", 0)
    stored = write_stage(tmp_path)
    assert "`lightlm store verify` reads every byte" in storage.check_store(tmp_path).message
    (manifest,) = (path for path in stored.parent.iterdir() if path != stored)
    manifest.write_text(json.dumps({"half": "a manifest"}), encoding="utf-8")
    assert storage.check_store(tmp_path).status == "fail"


def test_an_mlflow_server_that_is_away_is_a_failure_with_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    away = servers.check_mlflow(tmp_path)
    assert away.status == "fail"
    assert "127.0.0.1:9" in away.message
    assert "secret" not in away.message


def test_a_clock_is_compared_with_the_hubs() -> None:
    assert servers.check_clock(None).status == servers.check_clock(-3.0).status == "pass"
    late = servers.check_clock(7200.0)
    assert late.status == "warn"
    assert "7,200 s behind the Hub's" in late.message


def test_the_hub_is_not_asked_where_it_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    told, offset = servers.check_hub()
    assert "HF_HUB_OFFLINE is set" in told.message
    assert offset is None


def test_bytecode_that_is_not_kept_is_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    assert installation.check_bytecode().status == "warn"
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    assert installation.check_bytecode().status == "pass"
