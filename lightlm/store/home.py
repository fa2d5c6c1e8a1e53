"""LIGHTLM_HOME: the one folder that holds all state, outside any checkout."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from platformdirs import user_data_path

from lightlm.errors import StoreError

TEMPORARY_FILES = "tmp"
"""The folder of the home for temporary files, used where no other folder is writable."""


def name_home() -> Path:
    """Return the absolute path of LIGHTLM_HOME, or of the platform's user data folder; it may not
    be there yet.

    Raises:
        StoreError: it begins with the home of a user who does not exist.
    """
    named = os.environ.get("LIGHTLM_HOME", "").strip()
    try:
        return (Path(named).expanduser() if named else user_data_path("lightlm")).absolute()
    except RuntimeError as error:
        raise StoreError(
            f"LIGHTLM_HOME={named} names no folder ({error}); give LIGHTLM_HOME=/path"
        ) from None


def find_home(*, only_to_read: bool = False) -> Path:
    """Return the absolute path of LIGHTLM_HOME, or of the platform's user data folder; created,
    private.

    Raises:
        StoreError: it cannot be created or written to, or with `only_to_read` not be read.
    """
    home = name_home()
    if only_to_read and os.access(home, os.R_OK | os.X_OK):
        return home
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StoreError(
            f"cannot create {home} ({error.strerror}); give a folder that you can write to: "
            "LIGHTLM_HOME=/path"
        ) from None

    if not os.access(home, os.W_OK | os.X_OK):
        raise StoreError(
            f"{home} is not writable; give a folder that you can write to: LIGHTLM_HOME=/path"
        )

    return home


def provide_temporary_folder() -> None:
    """Let this process and its children use a folder of LIGHTLM_HOME for temporary files where no
    other is writable.

    Python's last choice is the current folder, which is a person's own.
    """
    named = [os.environ[name] for name in ("TMPDIR", "TEMP", "TMP") if os.environ.get(name)]
    with suppress(OSError):
        found = tempfile.gettempdir()
        if found != str(Path.cwd()) or found in named:
            return
    with suppress(OSError, StoreError):  # what needs the home reports itself what is wrong
        folder = find_home() / TEMPORARY_FILES
        folder.mkdir(mode=0o700, exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
