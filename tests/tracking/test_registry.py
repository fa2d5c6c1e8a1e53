"""Tests of the registry: names, aliases and their reasons, and files that are checked before they are opened."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lightlm.errors import ModelVersionError
from lightlm.tracking.outbox import Outbox
from lightlm.tracking.registration import judge
from lightlm.tracking.registry import (
    ModelVersion,
    download,
    list_versions,
    parse_model,
    resolve,
)


def version(number: str, **tags: str) -> ModelVersion:
    return ModelVersion(name="lightlm", version=number, run_id="r", aliases=(), tags=tags, created_at=datetime.now(UTC))


def register(folder: Path) -> ModelVersion:
    outbox = Outbox.start(folder)
    found = outbox.wait_for_version(60)
    shipment = outbox.close()
    assert shipment.error is None
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("models:/lightlm@champion", ("lightlm", "champion", None)),
        ("models:/my-model.2/17", ("my-model.2", None, "17")),
        ("models:/lightlm/latest", ("lightlm", None, "latest")),
        ("3", ("lightlm", None, "3")),
        ("previous", ("lightlm", "previous", None)),
        ("other", ("other", "champion", None)),
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
        "a b",
        "\x1b[31m",
        "m\n",
        "%2e%2e",
    ],
)
def test_what_is_no_models_name_is_refused(written: str) -> None:
    with pytest.raises(ModelVersionError, match="names no registered model"):
        parse_model(written)


@pytest.mark.parametrize(
    ("champion", "policy", "bits", "text", "moves", "words"),
    [
        (None, "better", 2.0, "t", True, "first champion"),
        (None, "never", 2.0, "t", False, "never"),
        (version("1", bits_per_byte="1.5", text_sha256="t"), "better", 1.4, "t", True, "1.4000 bits per byte"),
        (version("1", bits_per_byte="1.5", text_sha256="t"), "better", 1.6, "t", False, "version 1 stays champion"),
        (version("1", bits_per_byte="1.5", text_sha256="u"), "better", 9.9, "t", True, "another text"),
        (version("1", bits_per_byte="1.5", text_sha256="t"), "always", 9.9, "t", True, "always"),
        (version("1", bits_per_byte="1.5", text_sha256="t"), "never", 0.1, "t", False, "never"),
    ],
)
def test_the_champion_changes_by_a_rule_with_a_reason(
    champion: ModelVersion | None, policy: str, bits: float, text: str, moves: bool, words: str
) -> None:
    moved, reason = judge(champion, "2", policy, bits, text)
    assert moved == moves
    assert words in reason


def test_without_any_model_a_person_is_told_to_train() -> None:
    with pytest.raises(ModelVersionError, match="run `lightlm train` first"):
        resolve("models:/lightlm@champion")
    assert list_versions() == []


def test_versions_aliases_and_files_of_two_runs(home: Path, recorded: Callable[..., Path]) -> None:
    first = register(recorded("run-1", bits_per_byte=1.5))
    second = register(recorded("run-2", bits_per_byte=1.6))
    third = register(recorded("run-3", bits_per_byte=1.4))
    assert [v.version for v in list_versions()] == ["3", "2", "1"]
    assert first.aliases == ("challenger", "champion")
    assert resolve("models:/lightlm@champion").version == third.version == "3"
    assert resolve("previous").version == "1"
    assert second.tags["lightlm.promotion"].startswith("version 1 stays champion")
    assert resolve("models:/lightlm/2").tags["bits_per_byte"] == "1.6"
    assert resolve("models:/lightlm/latest").version == "3"
    for unknown in ("models:/lightlm/99", "models:/lightlm@nobody"):
        with pytest.raises(ModelVersionError, match=r"has the versions 3 \(challenger, champion\), 2, 1 \(previous\)"):
            resolve(unknown)
    with pytest.raises(ModelVersionError, match="registered models: lightlm"):
        resolve("models:/other@champion")

    folder = download(third)
    assert folder == home / "models" / "lightlm" / "3"
    assert (folder / "model.safetensors").exists()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    assert download(third) == folder, "a damaged copy is fetched again"
    stored = next((home / "mlartifacts").rglob("model.safetensors"))
    assert stored.is_relative_to(home)

    for path in (home / "mlartifacts").rglob("model.safetensors"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(bytes(content))
    shutil.rmtree(folder)
    with pytest.raises(ModelVersionError, match="not as it was registered and is not opened"):
        download(third)
    assert not folder.exists()
