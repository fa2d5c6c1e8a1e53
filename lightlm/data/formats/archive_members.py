"""What a file in an archive is called, whether it is read, and why not. What names say
of packing.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lightlm.data.formats.packed_streams import STREAM_SUFFIXES

TAR_PACKINGS = {
    ".tar": "",
    ".tar.gz": ".gz",
    ".tgz": ".gz",
    ".tar.bz2": ".bz2",
    ".tbz2": ".bz2",
    ".tbz": ".bz2",
    ".tar.xz": ".xz",
    ".txz": ".xz",
    ".tar.zst": ".zst",
    ".tzst": ".zst",
}
"""Suffix of a tar -> what it is packed by."""

ARCHIVE_SUFFIXES = (".zip", *TAR_PACKINGS)

OTHER_ARCHIVES = (
    ".7z",
    ".rar",
    ".lz4",
    ".br",
    ".lzma",
    ".lz",
    ".z",
    ".cab",
    ".iso",
    ".jar",
    ".zipx",
    ".cpio",
)
"""Suffixes of packed files that are not read."""

MAX_MEMBERS = 500_000
"""Members of one archive, each about 300 bytes of memory; Project Gutenberg has 75,000 books."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive: its name there, its size in bytes, and why it is left out (None: it can
    be read).
    """

    name: str
    size: int
    left_out: str | None = None
    index: int = 0


def split_suffix(name: str | Path) -> tuple[str, str]:
    """Return a name's own suffix and that of its packing, in small letters: ("a.jsonl.gz") ->
    (".jsonl", ".gz").
    """
    parts = PurePosixPath(str(name).replace("\\", "/")).name.lower()
    for packing in sorted((*ARCHIVE_SUFFIXES, *STREAM_SUFFIXES), key=len, reverse=True):
        if parts.endswith(packing) and parts != packing:
            if packing in ARCHIVE_SUFFIXES:
                return "", packing
            return PurePosixPath(parts.removesuffix(packing)).suffix, packing
    return PurePosixPath(parts).suffix, ""


def find_fault(name: str) -> str | None:
    """Return why a member of that name is left out; None if it is not."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or "\0" in name:
        return "it has no name"
    if parts[0] == "/" or ".." in parts or re.match(r"[A-Za-z]:", name):
        return "its name leads out of the archive"
    if "__MACOSX" in parts or any(part.startswith(".") for part in parts):
        return "hidden"
    suffix, packing = split_suffix(parts[-1])
    if packing in ARCHIVE_SUFFIXES or suffix in OTHER_ARCHIVES:
        return "an archive within an archive; unpack it first"
    return None


def show_name(name: str) -> str:
    """Return a member's name with `/` between its folders, without `.` among them."""
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def format_many(path: Path, count: int) -> str:
    """Return what is wrong with an archive of so many members, and what to do."""
    return (
        f"{path} has {count:,} members or more, at most {MAX_MEMBERS:,} are read; unpack it "
        "and give the folder"
    )
