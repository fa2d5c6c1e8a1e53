"""Deletion by name: a run's folder or a registered version, unless it is still needed."""

from pathlib import Path

from lightlm.errors import InputError
from lightlm.quantities import format_bytes
from lightlm.runs.folder import find_run
from lightlm.store.commit import remove_folder
from lightlm.store.lock import hold_lock
from lightlm.tracking.catalog import resolve
from lightlm.tracking.recorder import LOCK
from lightlm.tracking.registry import CHAMPION, delete_version
from lightlm.tracking.sync import list_pending


def remove_run(home: Path, name: str, *, is_forced: bool) -> str:
    """Remove a run's folder, with record, checkpoints and model; return a sentence about it.

    MLflow's record of it and its registered version stay.

    Raises:
        InputError: no or several such runs, or one whose record is not sent yet.
        BusyError: it is running.
    """
    folder = find_run(home, name, lambda folder: folder.parent == home / "runs" and folder.is_dir())
    if folder in set(list_pending(home)) and not is_forced:
        raise InputError(
            f"{folder.name} is not in MLflow yet; `lightlm sync` sends it first, --force removes "
            "it all the same"
        )

    with hold_lock(folder / LOCK, wait=False):
        num_bytes = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
    remove_folder(folder)
    return (
        f"removed run {folder.name}: {format_bytes(num_bytes)}; its registered version and "
        "MLflow's record stay"
    )


def remove_version(home: Path, model: str, name: str | None) -> str:
    """Delete a version from the registry, and its copy under LIGHTLM_HOME; return what was done.

    Raises:
        InputError: it is champion.
        ModelVersionError: there is no such version.
    """
    version = resolve(home, model, name)
    if CHAMPION in version.aliases:
        raise InputError(
            f"{version.uri} is champion; make another one champion first: lightlm promote VERSION "
            f"--name {version.name}"
        )

    delete_version(home, version)
    copy = home / "models" / version.name / version.version
    if copy.is_dir():
        remove_folder(copy)

    return f"removed {version.uri}; its run and the run's artifacts stay in MLflow"
