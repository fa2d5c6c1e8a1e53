"""The key of `lightlm serve`: given by the environment or a file, else made once and kept."""

import secrets
from collections.abc import Mapping
from pathlib import Path

from lightlm.errors import InputError
from lightlm.store.lock import hold_lock
from lightlm_flows.service.private_files import make_private_folder, write_private_file
from lightlm_flows.service.servers import MIN_SECRET_LENGTH, SECRET_BYTES, name_service_folder

KEY_VARIABLE = "LIGHTLM_API_KEY"
KEY_FILE = "api-key"
MOST_FILE_BYTES = 10_000


def find_given_key(
    given: str | None, file: Path | None, environment: Mapping[str, str]
) -> str | None:
    """Return the key that a person gave: by option, by file, by LIGHTLM_API_KEY; else None.

    Raises:
        InputError: the file cannot be read, or the key is shorter than 12 characters.
    """
    key = given or (None if file is None else read_key(file)) or environment.get(KEY_VARIABLE)
    if not key:
        return None
    if len(key) < MIN_SECRET_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(
            f"the key has to be {MIN_SECRET_LENGTH} or more printable characters without spaces; "
            "leave it out, and one is made"
        )
    return key


def read_key(file: Path) -> str:
    """Return the key that a file holds, without the end of its line.

    Raises:
        InputError: the file cannot be read or is empty.
    """
    try:
        with file.open("rb") as opened:
            key = opened.read(MOST_FILE_BYTES).decode("ascii", "replace").strip()
    except OSError as error:
        raise InputError(f"cannot read the key's file {file}: {error.strerror}") from None
    if not key:
        raise InputError(f"the key's file {file} is empty")
    return key


def name_key_file(home: Path) -> Path:
    """Return the path of this installation's own key."""
    return name_service_folder(home) / KEY_FILE


def open_own_key(home: Path) -> str:
    """Return this installation's own key; the first call makes it.

    Raises:
        StoreError: the disk refused.
    """
    path = name_key_file(home)
    make_private_folder(path.parent)
    with hold_lock(path.with_suffix(".lock")):
        if not path.exists():
            write_private_file(path, f"{secrets.token_urlsafe(SECRET_BYTES)}\n".encode())
        return read_key(path)
