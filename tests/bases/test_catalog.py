"""The list of bases: what is in the folders of this machine, and what `auto` would compare."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lightlm.bases.catalog import SHIPPED, list_bases, list_candidates
from lightlm.bases.folder import adopt_folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let all programs' folders be below the test's own."""
    for name, folder in {
        "HF_HUB_CACHE": "hub",
        "OLLAMA_MODELS": "ollama",
        "LLAMA_CACHE": "llama.cpp",
    }.items():
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path


def test_without_any_the_shipped_ones_are_listed_and_the_smallest_is_compared(home: Path) -> None:
    assert list_bases(home) == list(SHIPPED)
    assert list_candidates(home) == [SHIPPED[0].source]
    assert SHIPPED[0].num_parameters == min(one.num_parameters or 0 for one in SHIPPED)


def test_offline_nothing_is_compared(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert list_candidates(home) == []


def test_what_is_in_the_store_comes_first(home: Path, write_base: Callable[..., Path]) -> None:
    base = adopt_folder(home, write_base())
    first, *rest = list_bases(home)
    assert (first.source, first.place, first.license) == (str(base.folder), "store", "apache-2.0")
    assert first.context_length == 96
    assert rest == list(SHIPPED)
    assert list_candidates(home) == [str(base.folder)]


def test_the_hubs_cache_is_looked_through(
    home: Path, write_base: Callable[..., Path], elsewhere: Path
) -> None:
    snapshot = elsewhere / "hub/models--owner--name/snapshots/0123456789abcdef"
    snapshot.parent.mkdir(parents=True)
    write_base().rename(snapshot)
    other = elsewhere / "hub/models--owner--mamba/snapshots/0123456789abcdef"
    other.mkdir(parents=True)
    (other / "config.json").write_text('{"architectures": ["MambaForCausalLM"]}')
    found = {one.source: one for one in list_bases(home) if one.place == "Hub cache"}
    assert found["owner/name"].problem == ""
    assert found["owner/name"].license == "apache-2.0"
    assert "families Qwen3" in found["owner/mamba"].problem
    assert list_candidates(home) == ["owner/name"]
    origin = adopt_folder(home, snapshot).origin
    assert (origin.kind, origin.id, origin.revision) == ("hub", "owner/name", "0123456789abcdef")


def test_files_of_ollama_and_llama_cpp_are_found(home: Path, elsewhere: Path) -> None:
    digest = "sha256:" + "0" * 64
    manifest = elsewhere / "ollama/manifests/registry.ollama.ai/library/smollm2/135m"
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": digest}
    manifest.write_text(json.dumps({"layers": [layer]}))
    blob = elsewhere / "ollama/blobs" / digest.replace(":", "-")
    blob.parent.mkdir()
    blob.write_bytes(b"GGUF")
    (elsewhere / "llama.cpp").mkdir()
    (elsewhere / "llama.cpp/tiny.gguf").write_bytes(b"GGUF")
    found = {one.place: one for one in list_bases(home)}
    assert (found["Ollama"].name, found["Ollama"].source) == ("smollm2:135m", str(blob))
    assert found["llama.cpp"].name == "tiny"


def test_a_manifest_that_names_a_file_elsewhere_is_left_out(home: Path, elsewhere: Path) -> None:
    manifest = elsewhere / "ollama/manifests/registry.ollama.ai/library/odd/latest"
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": "../../../etc/passwd"}
    manifest.write_text(json.dumps({"layers": [layer]}))
    assert list_bases(home) == list(SHIPPED)
