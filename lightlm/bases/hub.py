"""A base from the Hugging Face Hub: its commit pinned, weights in safetensors alone; from the cache
where the Hub is out of reach.
"""

from dataclasses import dataclass
from pathlib import Path

from lightlm.bases.pretrained import OWN_FILES
from lightlm.errors import ModelVersionError
from lightlm.redaction import first_line
from lightlm.store.space import check_space

PATTERNS = [*OWN_FILES, "README.md", "*.safetensors", "model.safetensors.index.json"]
"""Files that are downloaded: nothing that can run code."""


NAMING_SECONDS = 8.0
"""Seconds that the Hub gets to name the commit of a revision."""


@dataclass(frozen=True)
class HubModel:
    """A model of the Hub here: its folder at a commit."""

    folder: Path
    name: str
    revision: str


def fetch_model(name: str, revision: str | None) -> HubModel:
    """Return a model of the Hub, downloaded if it is not in the Hub's cache yet.

    Without an answer of the Hub, what the cache has is taken.

    Raises:
        ModelVersionError: the Hub has no such model, or is out of reach and the cache has none.
        StoreError: the disk has no room.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        info = HfApi().model_info(
            name, revision=revision, timeout=NAMING_SECONDS, files_metadata=True
        )
        sizes = [file.size or 0 for file in info.siblings or [] if _is_wanted(file.rfilename)]
        check_space(Path.home(), sum(sizes), f"downloading {name}")
        folder = snapshot_download(name, revision=info.sha, allow_patterns=PATTERNS)
        return HubModel(Path(folder), name, info.sha or "")
    except GatedRepoError:
        raise ModelVersionError(
            f"{name} asks for consent on its page first; give it there and set HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise ModelVersionError(
            f"{name} has no revision {revision!r}; give start.revision another value"
        ) from None
    except RepositoryNotFoundError:
        raise ModelVersionError(
            f"the Hub has no model {name!r} that you may read; check the id (OWNER/NAME), or set "
            "HF_TOKEN for a private one. A local file or folder is named by its path"
        ) from None
    except Exception as error:  # noqa: BLE001
        # Whatever the HTTP library of the Hub's client raises: then the cache, if it has it.
        folder = find_cached(name, revision)
        if folder is None:
            raise ModelVersionError(
                f"the Hub is out of reach ({first_line(error)}) and {name} is not in its cache; "
                "`lightlm bases` lists what is here"
            ) from None
        return HubModel(folder, name, folder.name)


def find_cached(name: str, revision: str | None = None) -> Path | None:
    """Return a model's folder in the Hub's cache; None where it is not there."""
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=PATTERNS, local_files_only=True
            )
        )
    except Exception:  # noqa: BLE001  (not there, in whatever way)
        return None


def _is_wanted(name: str) -> bool:
    return name in PATTERNS or ("/" not in name and name.endswith(".safetensors"))
