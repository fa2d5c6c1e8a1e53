"""Bases that training can start from: those on this machine, and a short list of good small open
ones.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from lightlm.bases.folder import list_shards, read_card
from lightlm.bases.pretrained import KIND, read_origin
from lightlm.errors import LightLMError
from lightlm.model.accounting import count_parameters
from lightlm.model.families import read_config

OFFLINE_VARIABLE = "HF_HUB_OFFLINE"

MOST_FILES = 1000
"""Files or folders that are looked at in a folder of another program."""


class Listed(BaseModel, frozen=True):
    """A base in the list: what `--start` takes, where it was found, and what is known of it."""

    source: str
    place: Literal["store", "Hub cache", "Ollama", "llama.cpp", "LM Studio", "Hub"]
    name: str
    num_parameters: int | None = None
    num_bytes: int | None = None
    license: str = ""
    languages: tuple[str, ...] = ()
    context_length: int | None = None
    problem: str = ""
    """Why training cannot start from it; "" where it can."""


SHIPPED = (
    Listed(source="HuggingFaceTB/SmolLM2-135M", place="Hub", name="SmolLM2 135M",
           num_parameters=134_515_008, license="apache-2.0", languages=("en",),
           context_length=8192),
    Listed(source="HuggingFaceTB/SmolLM2-360M", place="Hub", name="SmolLM2 360M",
           num_parameters=361_821_120, license="apache-2.0", languages=("en",),
           context_length=8192),
    Listed(source="Qwen/Qwen2.5-0.5B", place="Hub", name="Qwen2.5 0.5B",
           num_parameters=494_032_768, license="apache-2.0",
           languages=("en", "zh", "de", "fr", "es", "29 in all"), context_length=32768),
    Listed(source="Qwen/Qwen3-0.6B-Base", place="Hub", name="Qwen3 0.6B",
           num_parameters=596_049_920, license="apache-2.0",
           languages=("en", "zh", "de", "fr", "es", "119 in all"), context_length=32768),
    Listed(source="TinyLlama/TinyLlama_v1.1", place="Hub", name="TinyLlama 1.1B",
           num_parameters=1_100_048_384, license="apache-2.0", languages=("en",),
           context_length=2048),
)  # fmt: skip
"""Small open bases of the families that LightLM computes, by the cards of their repositories in
November 2026.
"""

AUTO_CANDIDATES = 2
"""Bases that `auto` probes at most, the smallest first: each costs a share of the budget."""


def list_bases(home: Path) -> list[Listed]:
    """Return the bases on this machine, and then the shipped list."""
    found = [
        *_list_store(home),
        *_list_hub_cache(),
        *_list_ollama(),
        *_list_gguf("llama.cpp", _llama_cpp_folder()),
        *_list_gguf("LM Studio", Path.home() / ".lmstudio" / "models"),
        *_list_gguf("LM Studio", Path.home() / ".cache" / "lm-studio" / "models"),
    ]
    here = {one.source for one in found}
    return [*found, *(one for one in SHIPPED if one.source not in here)]


def list_candidates(home: Path) -> list[str]:
    """Return the sources that `auto` compares with training from scratch, the smallest first.

    Those on this machine; without one, the smallest of the shipped list, of which the Hub is asked
    unless HF_HUB_OFFLINE is set.
    """
    bases = [one for one in list_bases(home) if not one.problem]
    here = [one for one in bases if one.place != "Hub"]
    ordered = sorted(here, key=lambda one: one.num_parameters or (one.num_bytes or 0) * 2)
    if ordered:
        return [one.source for one in ordered[:AUTO_CANDIDATES]]
    if os.environ.get(OFFLINE_VARIABLE, "0") not in ("", "0"):
        return []
    return [SHIPPED[0].source]


def _list_store(home: Path) -> Iterator[Listed]:
    for folder in _list_folders(home / "store" / KIND):
        try:
            origin = read_origin(folder)
            if origin is None:
                continue
            config = read_config(folder)
        except LightLMError:
            continue
        yield Listed(
            source=str(folder),
            place="store",
            name=origin.id,
            num_parameters=count_parameters(config),
            num_bytes=_size(folder / "model.safetensors"),
            license=origin.license,
            languages=origin.languages,
            context_length=config.context_length,
        )


def _list_hub_cache() -> Iterator[Listed]:
    for folder in _list_folders(_hub_cache()):
        parts = folder.name.split("--")
        if parts[0] != "models" or len(parts) != 3:
            continue
        snapshots = sorted(
            (one for one in _list_folders(folder / "snapshots") if (one / "config.json").exists()),
            key=lambda one: one.stat().st_mtime,
            reverse=True,
        )
        if not snapshots:
            continue
        newest = snapshots[0]
        one = Listed(source=f"{parts[1]}/{parts[2]}", place="Hub cache", name=parts[2])
        try:
            config = read_config(newest)
            size = sum(_size(path) or 0 for path in list_shards(newest))
        except LightLMError as error:
            yield one.model_copy(update={"problem": str(error)})
            continue
        card = read_card(newest)
        yield one.model_copy(
            update={
                "num_parameters": count_parameters(config),
                "num_bytes": size,
                "context_length": config.context_length,
                "license": card.get("license", ""),
                "languages": tuple(card.get("languages", ())),
            }
        )


def _list_ollama() -> Iterator[Listed]:
    """Yield Ollama's models: manifests name the blob that is a GGUF file."""
    root = Path(os.environ.get("OLLAMA_MODELS", Path.home() / ".ollama" / "models"))
    manifests = root / "manifests"
    if not manifests.is_dir():
        return
    for path in sorted(manifests.rglob("*"))[:MOST_FILES]:
        try:
            values = json.loads(path.read_bytes()) if path.is_file() else {}
            layers = values.get("layers") or []
            digest = next(
                str(layer["digest"])
                for layer in layers
                if str(layer.get("mediaType", "")).endswith("image.model")
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration):
            continue
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            continue
        blob = root / "blobs" / digest.replace(":", "-")
        if blob.is_file():
            name = ":".join(path.relative_to(manifests).parts[-2:])
            yield Listed(source=str(blob), place="Ollama", name=name, num_bytes=_size(blob))


def _list_gguf(place: Literal["llama.cpp", "LM Studio"], folder: Path) -> Iterator[Listed]:
    if not folder.is_dir():
        return
    for path in sorted(folder.rglob("*.gguf"))[:MOST_FILES]:
        yield Listed(source=str(path), place=place, name=path.stem, num_bytes=_size(path))


def _llama_cpp_folder() -> Path:
    """Return where llama.cpp keeps what it downloads."""
    if "LLAMA_CACHE" in os.environ:
        return Path(os.environ["LLAMA_CACHE"])
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "llama.cpp"


def _hub_cache() -> Path:
    """Return the Hub's cache, as huggingface_hub finds it, which takes long to import."""
    if "HF_HUB_CACHE" in os.environ:
        return Path(os.environ["HF_HUB_CACHE"])
    root = os.environ.get("HF_HOME")
    if root is None:
        cache = os.environ.get("XDG_CACHE_HOME")
        root = str((Path(cache) if cache else Path.home() / ".cache") / "huggingface")
    return Path(root).expanduser() / "hub"


def _list_folders(parent: Path) -> list[Path]:
    try:
        folders = [path for path in parent.iterdir() if path.is_dir() and path.name[0] != "."]
    except OSError:
        return []
    return sorted(folders)[:MOST_FILES]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
