"""Tests of registered versions: one flipped bit is found and named, and an intact copy
is put back.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lightlm.errors import ModelVersionError, StoreError
from lightlm.tracking.registry import ModelVersion, download, open_client
from lightlm.tracking.shipper import Shipper
from lightlm.tracking.verification import find_damage, list_version_files, repair
from lightlm_flows.cli.checks.storage import check_versions


@pytest.fixture
def version(home: Path, recorded: Callable[..., Path], model_folder: Path) -> ModelVersion:
    """A registered version whose run's own model is still under the home."""
    folder = recorded("run-1", steps=1)
    shutil.copytree(model_folder, folder / "model")
    shipper = Shipper(folder, open_client(home), home)
    shipper.ship()
    assert shipper.state.version is not None
    return shipper.state.version


def stored(home: Path, name: str) -> Path:
    (path,) = (home / "mlartifacts").rglob(f"model/{name}")
    return path


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def lightlm(*words: str) -> "subprocess.CompletedProcess[str]":
    code = "import sys; from lightlm_flows.cli.main import main; sys.argv[0] = 'lightlm'; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )


def test_a_flipped_bit_is_named_by_verify_and_doctor_and_repaired(
    home: Path, version: ModelVersion
) -> None:
    assert check_versions(home).message == "1 as they were registered"
    weights = stored(home, "model.safetensors")
    intact = weights.read_bytes()
    flip(weights)

    with pytest.raises(
        ModelVersionError, match="`lightlm store verify --repair` puts an intact copy back"
    ) as caught:
        download(home, version)

    assert str(home) not in str(caught.value), "no folder is named that is gone by now"
    checked = check_versions(home)
    assert (checked.status, checked.fix) == ("fail", "lightlm store verify --repair")
    assert (
        "models:/lightlm/1 (challenger, champion) is not as it was registered: model.safetensors"
        in checked.message
    )

    found = lightlm("store", "verify")
    assert found.returncode == 74
    assert (
        "models:/lightlm/1 (challenger, champion) is not as it was registered: model.safetensors"
        in found.stderr
    )

    assert f"an intact copy is in {home / 'runs' / 'run-1' / 'model'}" in " ".join(
        found.stderr.split()
    )
    repaired = lightlm("store", "verify", "--repair")
    assert repaired.returncode == 0, repaired.stderr
    assert "models:/lightlm/1 has its files again, from " in repaired.stdout
    assert weights.read_bytes() == intact
    assert [path.name for path in weights.parent.parent.iterdir()] == ["model"], (
        "nothing is left beside it"
    )

    assert len(list((home / "store" / "quarantine").iterdir())) == 1, (
        "the damaged files are set aside, not deleted"
    )
    assert check_versions(home).status == "pass"
    assert download(home, version).is_dir()


@pytest.mark.parametrize(
    "damage", ["missing folder", "missing file", "stranger", "manifest", "other model"]
)
def test_every_kind_of_damage_is_found_and_repaired(
    home: Path, version: ModelVersion, damage: str
) -> None:
    folder = stored(home, "config.json").parent
    if damage == "missing folder":
        shutil.rmtree(folder)
    elif damage == "missing file":
        (folder / "config.json").unlink()
    elif damage == "stranger":
        (folder / "adapter_config.json").write_text("{}")
    elif damage == "manifest":
        (folder / "manifest.json").write_text("[" * 100_000)
    else:
        flip(folder / "config.json")

    (files,) = list_version_files(home)
    found = find_damage(home, files)
    assert found is not None
    repair(home, found)
    assert find_damage(home, files) is None


def test_a_repair_that_was_interrupted_is_finished(home: Path, version: ModelVersion) -> None:
    flip(stored(home, "config.json"))
    (files,) = list_version_files(home)
    found = find_damage(home, files)
    assert found is not None
    assert found.intact is not None
    assert files.folder is not None
    shutil.copytree(found.intact, files.folder.with_name("model.intact"))
    shutil.rmtree(files.folder)
    repair(home, found)
    assert find_damage(home, files) is None


def test_without_an_intact_copy_another_version_is_advised(
    home: Path, version: ModelVersion
) -> None:
    flip(stored(home, "model.safetensors"))
    flip(home / "runs" / "run-1" / "model" / "model.safetensors")
    (files,) = list_version_files(home)
    found = find_damage(home, files)
    assert found is not None
    assert (
        "no intact copy of it is here; make another version champion with `lightlm promote`"
        in found.describe()
    )
    with pytest.raises(StoreError):
        repair(home, found)


def test_a_link_that_leads_out_of_the_home_is_not_written_through(
    home: Path, version: ModelVersion, tmp_path: Path
) -> None:
    folder = stored(home, "config.json").parent
    outside = tmp_path / "outside" / "artifacts"
    outside.parent.mkdir()
    folder.parent.rename(outside)
    folder.parent.symlink_to(outside)
    flip(outside / "model" / "config.json")
    (files,) = list_version_files(home)
    found = find_damage(home, files)
    assert found is not None
    with pytest.raises(StoreError, match="not under"):
        repair(home, found)


def test_a_home_without_versions_has_none_to_verify(home: Path) -> None:
    assert list_version_files(home) == []
    assert check_versions(home).message == "none is registered yet"
