"""Uploaded files: streamed into a folder under LIGHTLM_HOME/studio/uploads, which is then a data
set.
"""

import re
import secrets
import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath

from lightlm.errors import InputError
from lightlm.json_object import JsonObject
from lightlm.store.commit import publish_file
from lightlm.store.disk import explain_refusals
from lightlm.store.scratch import name_temporary
from lightlm.store.space import check_space

MOST_FILES = 2000
"""Files of one upload."""

MOST_BYTES = 4 << 30
"""Bytes of one upload, all files together."""

MOST_PARTS = 8
"""Folders inside of each other that an uploaded folder keeps."""

LONGEST_NAME = 200
"""Bytes of a file's name: disks take 255, and a number may come to it."""

UPLOAD = re.compile(r"[0-9a-f]{12}")


class Uploads:
    """The uploads of a home. Each is a folder that holds one folder, named by a person's word."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "studio" / "uploads"

    def begin(self, label: str) -> JsonObject:
        """Make a folder for files; return its number.

        Raises:
            StoreError: the disk refused.
        """
        number = secrets.token_hex(6)
        folder = self.folder / number / (clean_name(label).lstrip(".-") or "text")
        with explain_refusals(folder):
            folder.mkdir(mode=0o700, parents=True)
        return {"upload": number, "source": str(folder)}

    async def add(
        self, number: str, name: str, num_bytes: int, chunks: AsyncIterator[bytes]
    ) -> JsonObject:
        """Write a file of an upload; return the data set that it is now: the file while it is the
        only one, else the folder.

        Raises:
            InputError: no such upload, no name for a file, or too much.
            StoreError: the disk refused.
        """
        folder = self._find(number)
        path = find_free(folder.joinpath(*split_name(name)))
        known = [one for one in folder.rglob("*") if one.is_file()]
        total = sum(one.stat().st_size for one in known)
        if len(known) >= MOST_FILES or total + num_bytes > MOST_BYTES:
            raise InputError(
                f"an upload takes at most {MOST_FILES:,} files and {MOST_BYTES / 1e9:.1f} GB; put "
                "the files into a folder of this machine and give its path"
            )

        check_space(folder, num_bytes, "the upload")
        with explain_refusals(path):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = name_temporary(self.folder)
            try:
                with temporary.open("xb") as file:
                    async for chunk in chunks:
                        file.write(chunk)
                publish_file(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)

        files = {*known, path}
        source = path if len(files) == 1 else folder
        return {"source": str(source), "files": len(files), "bytes": path.stat().st_size}

    def _find(self, number: str) -> Path:
        place = self.folder / number
        folders = list(place.iterdir()) if UPLOAD.fullmatch(number) and place.is_dir() else []
        if len(folders) != 1:
            raise InputError("there is no such upload; choose the files again")
        return folders[0]


def split_name(name: str) -> list[str]:
    """Return the parts of an uploaded file's name, each harmless.

    Raises:
        InputError: nothing is left of it, or it is too deep.
    """
    parts = [clean_name(part) for part in PurePosixPath(name.replace("\\", "/")).parts]
    kept = [part for part in parts if part.strip(".")]
    if not kept:
        raise InputError(f"{name!r} is no name for an uploaded file; rename it")
    if len(kept) > MOST_PARTS:
        raise InputError(
            f"{name!r} is no name for an uploaded file, which may lie in {MOST_PARTS - 1} folders "
            "at most; give the path of the folder on this machine"
        )
    return kept


def find_free(path: Path) -> Path:
    """Return the path, with a number where another file has it: two names may be one once they are
    harmless and short.
    """
    free = path
    number = 2
    while free.exists():
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return free


def clean_name(name: str) -> str:
    """Return a name without what has a meaning in paths, in patterns or on a terminal."""
    plain = unicodedata.normalize("NFC", name)
    shown = "".join(letter if letter.isprintable() else "_" for letter in plain)
    clean = re.sub(r'[/\\:*?"<>|\[\]~]', "_", shown).strip()
    content = clean.encode()
    if len(content) <= LONGEST_NAME:
        return clean

    suffix = "".join(PurePosixPath(clean).suffixes[-2:]).encode()
    if len(suffix) > LONGEST_NAME // 2:
        suffix = b""
    return (content[: LONGEST_NAME - len(suffix)] + suffix).decode(errors="ignore")
