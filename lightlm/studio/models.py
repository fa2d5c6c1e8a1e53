"""The registered models as the page shows them: versions, champions, scores, runs, exports."""

import re
from pathlib import Path

from lightlm.errors import InputError
from lightlm.json_object import JsonObject
from lightlm.store.commit import MANIFEST
from lightlm.tracking.catalog import list_models
from lightlm.tracking.registry import NAME, PROMOTION_TAG, ModelVersion, list_versions
from lightlm.tracking.runs import list_runs

MOST_RUNS = 200
"""Newest runs of this machine that are searched for those of the versions."""

SHOWN_TAGS = ("bits_per_byte", "num_parameters", "dataset", "hours", "started_from")


def describe_models(home: Path) -> list[JsonObject]:
    """Return every model with its versions, the one trained last first.

    Raises:
        TrackingError: MLflow's store cannot be used.
    """
    runs = {run.version: run.run for run in list_runs(home, MOST_RUNS) if run.version}
    return [
        {
            "name": model.name,
            "versions": [
                describe_version(version, runs.get(version.uri), home)
                for version in list_versions(home, model.name)
            ],
        }
        for model in list_models(home)
    ]


def describe_version(version: ModelVersion, run: str | None, home: Path) -> JsonObject:
    """Return a version; `run` is the folder of its run where it is on this machine."""
    begin = f"{version.name}-{version.version}"
    folders = (find_exports(home) / f"{begin}-{to}" for to in FORMATS)
    return {
        "version": version.version,
        "uri": version.uri,
        "aliases": list(version.aliases),
        "created_at": version.created_at.isoformat(),
        "promotion": version.tags.get(PROMOTION_TAG, ""),
        "run": run,
        "exports": [list_export(folder) for folder in folders if folder.is_dir()],
        **{name: version.tags.get(name, "") for name in SHOWN_TAGS},
    }


FORMATS = ("hf", "gguf", "gguf-f16", "gguf-q8_0", "gguf-q5_0", "gguf-q4_0", "onnx", "web")

EXPORT = re.compile(rf"{NAME}-[1-9]\d*-(?P<to>{'|'.join(FORMATS)})")
"""The name of an export's folder: model, version and format."""


def find_exports(home: Path) -> Path:
    """Return the folder of the studio's exports."""
    return home / "studio" / "exports"


def list_export(folder: Path) -> JsonObject:
    """Return an export's folder, and its files with their bytes."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path.name != MANIFEST
    )
    return {
        "to": EXPORT.fullmatch(folder.name)["to"],  # pyright: ignore[reportOptionalSubscript]
        "name": folder.name,
        "folder": str(folder),
        "files": [
            {"name": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size}
            for path in files
        ],
    }


def find_export(home: Path, name: str, file: str) -> Path:
    """Return the path of an export's file.

    Raises:
        InputError: there is none such.
    """
    for folder in find_exports(home).glob("*/"):
        if folder.name == name and EXPORT.fullmatch(name):
            for path in folder.rglob("*"):
                is_it = path.relative_to(folder).as_posix() == file
                if is_it and path.is_file() and not path.is_symlink():
                    return path
    raise InputError(f"there is no file {file} of the export {name}; export the version first")
