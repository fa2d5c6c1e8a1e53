"""What `start.source` names: scratch, auto, a file, a folder, a Hub id, or a registered version."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from lightlm.bases.folder import adopt_folder, list_shards
from lightlm.bases.gguf_file import adopt_gguf
from lightlm.bases.hub import fetch_model
from lightlm.bases.pretrained import BASE_FILE, Base, open_base
from lightlm.errors import ModelVersionError
from lightlm.model.card import HUB_ID
from lightlm.model.families import read_config
from lightlm.store.commit import open_commit
from lightlm.store.lock import ignore

SCRATCH = "scratch"
AUTO = "auto"

MAGIC = b"GGUF"
"""First bytes of a GGUF file."""

Kind = Literal["scratch", "auto", "gguf", "folder", "hub", "version"]


class Found(NamedTuple):
    """A base, and the seconds that it took to download it and to bring it into the store, once."""

    base: Base
    seconds: float = 0.0


def kind_of(source: str) -> Kind:
    """Return what a source names; the name of a registered version, if nothing else.

    Raises:
        ModelVersionError: it looks like a path, and nothing is there.
    """
    if source in (SCRATCH, AUTO):
        return "scratch" if source == SCRATCH else "auto"

    path = Path(source).expanduser()
    if path.is_file():
        if not _is_gguf(path):  # Ollama's files have no suffix
            raise ModelVersionError(
                f"{source} is no GGUF file; give one, or the folder that holds config.json and "
                "model.safetensors"
            )
        return "gguf"
    if path.is_dir():
        return "folder"
    if source.startswith(("/", "./", "../", "~")) or path.suffix.lower() == ".gguf":
        raise ModelVersionError(
            f"there is no {source} to start from; give a folder, a GGUF file, a Hub id "
            "(OWNER/NAME) or a registered version (`lightlm bases` lists what is here)"
        )
    return "hub" if HUB_ID.fullmatch(source) else "version"


def _is_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise ModelVersionError(
            f"{path} cannot be read ({error.strerror}); give a file that can"
        ) from None


def check_source(source: str) -> None:
    """Refuse at once a source that is not there, or is of another family.

    Raises:
        ModelVersionError: with what to do.
    """
    if kind_of(source) == "folder":
        folder = Path(source).expanduser()
        read_config(folder)
        list_shards(folder)


def find_base(
    home: Path,
    source: str,
    *,
    revision: str | None = None,
    report: Callable[[str], None] = ignore,
) -> Found:
    """Return the base that a file, a folder or a Hub id names, checked and in the store.

    Raises:
        ModelVersionError: it is not there, damaged, or of another family.
        TokenizerError: its tokenizer loses text.
        StoreError: the disk refused.
    """
    spent: list[float] = []
    kind = kind_of(source)
    path = Path(source).expanduser()
    if kind == "gguf":
        base = adopt_gguf(home, path, report=report, note_seconds=spent.append)
        return Found(base, sum(spent))
    if kind == "folder" and (path / BASE_FILE).is_file():
        # One of the store, or a model that was trained from a base here.
        return Found(open_base(open_commit(path).folder))
    if kind == "folder":
        base = adopt_folder(home, path, report=report, note_seconds=spent.append)
        return Found(base, sum(spent))

    report(f"Asking the Hub for {source}")
    started = time.monotonic()
    fetched = fetch_model(source, revision)
    spent.append(time.monotonic() - started)
    base = adopt_folder(
        home,
        fetched.folder,
        kind="hub",
        name=fetched.name,
        revision=fetched.revision,
        report=report,
        note_seconds=spent.append,
    )
    return Found(base, sum(spent))
