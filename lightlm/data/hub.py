"""Data sets of the Hugging Face Hub: found, downloaded once or read in part, and read as files.

Requests have a time-out and clear errors. huggingface_hub itself reads HF_ENDPOINT, HF_TOKEN,
HF_HOME and HF_HUB_OFFLINE. Code of a data set never runs.
"""

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightlm.data.files.inputs import SPLIT_WORDS, InputFile, split_of
from lightlm.data.files.suffixes import SUFFIXES
from lightlm.data.formats.packing import split_suffix
from lightlm.data.remote import HubUnreachable, RemoteFile, connection_error
from lightlm.errors import DatasetError
from lightlm.json_object import JsonObject
from lightlm.params import DatasetParams
from lightlm.redaction import first_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CONVERTED = "refs/convert/parquet"
"""The branch in which the Hub keeps a parquet copy of data sets in other formats."""

SIZED_FILES = 500
"""Files of a split whose sizes the Hub is asked for: as many as its client asks for at once."""

_found: dict[tuple[str, str | None, str | None], "HubFiles"] = {}
"""What the Hub answered in this process: a run asks when it begins and when it reads, and both are
of one commit.
"""


@dataclass(frozen=True)
class HubFiles:
    """The files of a data set by split, at one commit; `sizes` in bytes, of each split's first
    SIZED_FILES in seeded order.
    """

    repository: str
    commit: str
    splits: dict[str, tuple[str, ...]]
    sizes: dict[str, int]


def find_hub_files(params: DatasetParams) -> HubFiles:
    """Return which files of the Hub make up the data set that `params` name.

    Raises:
        HubUnreachable: no answer within `hub_timeout_seconds`, all tries together.
        DatasetError: the Hub answers, but has no such data set, configuration, or no readable
            files.
    """
    key = (params.source, params.config, params.revision)
    if key not in _found:
        _found[key] = _within(params.hub_timeout_seconds, lambda: _ask_for_files(params))
    return _found[key]


def download_file(found: HubFiles, name: str) -> Path:
    """Return the local copy of a file, downloaded if it is not in the Hub's cache yet.

    Raises:
        HubUnreachable: the connection broke; what was downloaded stays in the cache.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            hf_hub_download(found.repository, name, repo_type="dataset", revision=found.commit)
        )
    except (connection_error(), HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise HubUnreachable(
            f"download of {found.repository} failed: {first_line(error)}"
        ) from None


def open_remote(found: HubFiles, name: str) -> RemoteFile:
    """Return a file that is read by ranges."""
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(found.repository, name, repo_type="dataset", revision=found.commit)
    return RemoteFile(url, name, found.sizes[name])


def list_hub_files(found: HubFiles, split: str) -> list[InputFile]:
    """Return the files of a split as they are on the Hub; those without a size get the mean."""
    names = found.splits[split]
    sizes = [found.sizes[name] for name in names if name in found.sizes]
    mean = sum(sizes) // max(1, len(sizes))
    return [
        InputFile(
            Path(name), name, suffix_of(name), found.sizes.get(name, mean), split, is_part=True
        )
        for name in names
    ]


def _ask_for_files(params: DatasetParams) -> HubFiles:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if constants.HF_HUB_OFFLINE:
        raise HubUnreachable("HF_HUB_OFFLINE is set")

    api = HfApi()
    name = params.source
    try:
        info = api.dataset_info(name, revision=params.revision, timeout=params.hub_timeout_seconds)
        names = [file.rfilename for file in info.siblings or []]
        splits = group_splits(names, params.config)
        configs = list_configs(names)
        if not splits and params.revision is None:
            with contextlib.suppress(RevisionNotFoundError):
                info = api.dataset_info(
                    name, revision=CONVERTED, timeout=params.hub_timeout_seconds
                )
                names = [file.rfilename for file in info.siblings or []]
                splits = group_splits(names, params.config)
                configs += list_configs(names)
        sizes = _ask_for_sizes(api, name, info.sha or "", splits)
    except GatedRepoError:
        raise DatasetError(
            f"{name} asks for consent on its page first; give it there and set HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise DatasetError(
            f"{name} has no revision {params.revision!r}; give dataset.revision another value"
        ) from None
    except RepositoryNotFoundError:
        raise DatasetError(
            f"the Hub has no data set {name!r} that you may read; check the id (OWNER/NAME), or "
            "set HF_TOKEN for a private one. A local file or folder is named by its path"
        ) from None
    except (connection_error(), HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        raise HubUnreachable(first_line(error)) from None

    if not splits:
        raise DatasetError(
            f"{name} has no readable files for configuration {params.config!r}; "
            f"configurations: {', '.join(configs) or 'none found'}; give one as --dataset-config"
        )

    return HubFiles(name, info.sha or "", splits, sizes)


def _ask_for_sizes(
    api: "HfApi", name: str, commit: str, splits: dict[str, tuple[str, ...]]
) -> dict[str, int]:
    """Return the sizes of files in one request a split: a list of all files with their sizes would
    take the Hub long where there are many.
    """
    sizes: dict[str, int] = {}
    for names in splits.values():
        paths = sort_seeded(commit, names)[:SIZED_FILES]
        for file in api.get_paths_info(name, paths, revision=commit, repo_type="dataset"):
            sizes[file.path] = getattr(file, "size", 0)
    return sizes


def sort_seeded(seed: str, names: Iterable[str]) -> list[str]:
    """Return names in an order that looks like chance and is the same on every machine."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}\n{name}".encode()).digest())


def group_splits(names: list[str], config: str | None) -> dict[str, tuple[str, ...]]:
    """Return a repository's data files by split: those of `config`, in its folder or with its name
    in theirs.

    Without a configuration, all files, which must then lie in one folder.
    """
    readable = [name for name in sorted(names) if _is_readable(name)]
    if config is not None:
        readable = [n for n in readable if config in Path(n).parts[:-1]] or [
            n for n in readable if Path(n).stem.startswith(config)
        ]
    elif len(list_configs(names)) > 1:
        return {}

    suffixes = {suffix_of(name) for name in readable}
    wanted = next((suffix for suffix in SUFFIXES if suffix in suffixes), None)
    splits: dict[str, list[str]] = {}

    for name in readable:
        if suffix_of(name) == wanted:
            # Texts of the Hub, too, say their split between delimiters: TinyStories-valid.txt.
            split = split_of("/".join(Path(name).parts[-2:]), is_table=True)
            splits.setdefault(split, []).append(name)

    return {split: tuple(files) for split, files in splits.items()}


def list_configs(names: list[str]) -> list[str]:
    """Return the folders that hold a repository's data files: its configurations, as the Hub lays
    them out.
    """
    folders = set()
    for name in names:
        if _is_readable(name):
            parts = [part for part in Path(name).parts[:-1] if part not in SPLIT_WORDS]
            folders.add(parts[-1] if parts else "default")
    return sorted(folders)


def _within(seconds: float, ask: Callable[[], HubFiles]) -> HubFiles:
    """Run `ask` in a thread that is left behind when it takes too long: retries and slow answers
    count together.
    """
    answer: JsonObject = {}

    def run() -> None:
        try:
            answer["value"] = ask()
        except Exception as error:  # noqa: BLE001  (carried over to the caller)
            answer["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise HubUnreachable(f"no answer within {seconds:g} s")
    if "error" in answer:
        raise answer["error"]

    return answer["value"]


def suffix_of(name: str) -> str:
    """Return the suffix that says how a file is read, without that of its packing."""
    return split_suffix(Path(name).name)[0].lower()


def _is_readable(name: str) -> bool:
    is_archive = name.lower().endswith(
        (".zip", ".tar", ".tgz", ".tar.gz", ".tar.zst", ".tar.bz2", ".tar.xz")
    )
    return suffix_of(name) in SUFFIXES and not is_archive and not _is_about(name)


def _is_about(name: str) -> bool:
    base = Path(name).name.lower()
    return base.startswith(("readme", "license", ".")) or base in (
        "dataset_infos.json",
        "dataset_dict.json",
    )
