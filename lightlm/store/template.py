"""Empty databases of this installation, copied into each new home: making one takes seconds.

They are next to the installed packages, whose code they are as trusted as; where that folder is not
writable, none is kept.
"""

import os
import secrets
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path

from lightlm.errors import StoreError
from lightlm.store.commit import publish_file
from lightlm.store.disk import explain_refusals, make_folder


def name_template(package: str) -> Path:
    """Return where the empty database of an installed package's version is kept."""
    return Path(sys.prefix) / "share" / "lightlm" / f"{package}-{version(package)}.db"


def copy_template(
    package: str, database: Path, changes: Mapping[str, tuple[str, ...]] | None = None
) -> bool:
    """Make `database` of the empty one, as a whole or not at all; return whether it was made.

    `changes` are statements with their values, for what the empty one says of the home that it was
    made in.
    """
    return not database.exists() and _copy(name_template(package), database, changes or {})


def keep_template(package: str, database: Path) -> None:
    """Keep a database that holds nothing yet as the empty one of its package, unless
    there is one.
    """
    template = name_template(package)
    if not template.exists() and _copy(database, template, {}):
        with suppress(OSError):
            template.chmod(0o644)  # who installs is not always who runs


def publish_database(temporary: Path, path: Path) -> None:
    """Give a finished database a name that none has, durably.

    What a deleted database of that name left of its log goes first: SQLite would take it for the
    new one's, and the new one for the old.

    Raises:
        StoreError: the disk refused.
    """
    if not path.exists():
        with explain_refusals(path):
            for kind in ("wal", "shm", "journal"):
                path.with_name(f"{path.name}-{kind}").unlink(missing_ok=True)
    publish_file(temporary, path)


def _copy(source: Path, target: Path, changes: Mapping[str, tuple[str, ...]]) -> bool:
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        if not source.exists():
            return False
        make_folder(target.parent)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(temporary)) as write:
            read.backup(write)
            for statement, values in changes.items():
                write.execute(statement, values)
            write.commit()
        publish_database(temporary, target)
    except (OSError, sqlite3.Error, StoreError):
        return False
    else:
        return True
    finally:
        with suppress(OSError):
            temporary.unlink()
