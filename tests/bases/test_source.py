"""What a source names: a file, a folder, a Hub id or a version, or an error that says what to give."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lightlm.bases.source import check_source, find_base, kind_of
from lightlm.errors import ModelVersionError


def test_each_kind_of_source_is_told_apart(write_base: Callable[..., Path], tmp_path: Path) -> None:
    blob = tmp_path / "sha256-0123"
    blob.write_bytes(b"GGUF\x03\x00\x00\x00")
    sources = {
        "scratch": "scratch",
        "auto": "auto",
        str(write_base()): "folder",
        str(blob): "gguf",
        "OWNER/NAME-1.5B": "hub",
        "notes": "version",
        "models:/notes/3": "version",
        "models:/notes@champion": "version",
    }
    assert {source: kind_of(source) for source in sources} == sources


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("./nothing", "there is no ./nothing"),
        ("nothing.gguf", "lightlm bases"),
        ("/nothing/here", "there is no /nothing/here"),
    ],
)
def test_a_path_that_is_not_there_is_refused(source: str, message: str) -> None:
    with pytest.raises(ModelVersionError, match=message):
        kind_of(source)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelVersionError, match="is no GGUF file"):
        check_source(str(path))


def test_a_folder_of_another_family_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["MambaForCausalLM"]}')
    with pytest.raises(ModelVersionError, match="families Qwen3, Llama or Qwen2"):
        check_source(str(tmp_path))


def test_a_base_of_the_store_is_taken_as_it_is(home: Path, write_base: Callable[..., Path]) -> None:
    base = find_base(home, str(write_base())).base
    assert find_base(home, str(base.folder)).base == base


def test_without_the_hub_a_model_that_is_not_in_its_cache_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelVersionError, match="is not in its cache"):
        find_base(home, "owner/name")
