"""What a name means on this machine: a path, a pattern, or neither; and the names that are nearest
to it.
"""

import difflib
import glob
import os
import re
from pathlib import Path

from lightlm.data.files.suffixes import PACKED_SUFFIXES, SUFFIXES
from lightlm.errors import DatasetError
from lightlm.params import URL_SCHEMES

PYTHON_DOCS = "python-docs"

HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")


def find_local_path(source: str) -> Path | None:
    """Return the file, folder or pattern that `source` names, None where it is a Hub id or the
    built-in corpus.

    Raises:
        DatasetError: it looks like a path and is not there; with the nearest names that are.
    """
    if source == PYTHON_DOCS or is_url(source):
        return None

    path = _expand(source)
    try:
        if path.exists():
            return path.absolute()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise DatasetError(
            f"{_shorten(source)} cannot be a file ({why}); give a file or folder of text"
        ) from None

    if is_pattern(path):
        return path
    if _looks_local(source, path) or not HUB_ID.match(source):
        near = suggest_names(path)
        raise DatasetError(
            f"{_shorten(source)} does not exist; {near or 'give a file or folder of text'}"
            f"{'' if near else f', a Hub id (OWNER/NAME), or {PYTHON_DOCS}'}"
        )

    return None


def is_url(source: str) -> bool:
    """Return whether a name is the URL of a folder in object storage or elsewhere."""
    return source.startswith(URL_SCHEMES)


def is_pattern(path: Path) -> bool:
    """Return whether a path is a pattern such as src/**/*.py, and no file of that very name."""
    return glob.has_magic(str(path)) and not os.path.lexists(path)


def suggest_names(path: Path) -> str:
    """Return "did you mean notes?" for a name that is not there but nearly is, or ""."""
    folder = path.parent
    try:
        names = [
            entry.name
            for entry in os.scandir(folder if str(folder) else ".")
            if not entry.name.startswith(".")
        ]
    except OSError:
        return ""

    near = difflib.get_close_matches(path.name, names, 3, 0.6) or [
        name for name in sorted(names) if Path(name).stem.lower() == path.stem.lower()
    ]
    return f"did you mean {' or '.join(str(folder / name) for name in near[:3])}?" if near else ""


def _expand(source: str) -> Path:
    try:
        return Path(source).expanduser()
    except RuntimeError:  # ~draft.txt: no such user, but maybe a file of that name
        return Path(source)


def _looks_local(source: str, path: Path) -> bool:
    """Return whether a name that is not there was meant as a path, by its beginning, its suffix or
    its first folder.
    """
    suffixes = (*SUFFIXES, *PACKED_SUFFIXES)
    first = path.parts[0] if len(path.parts) > 1 else ""
    return (
        source.startswith((".", "/", "~", "\\"))
        or source.endswith(("/", os.sep))
        or path.name.lower().endswith(suffixes)
        or bool(first and Path(first).is_dir())
    )


def _shorten(source: str) -> str:
    return source if len(source) <= 120 else f"{source[:100]}... ({len(source):,} characters)"
