"""Packed inputs: what a name says of its packing, the members of an archive, and a way to open each
of them.

An input is a file, a packed file (.gz .bz2 .xz .zst), or a member of an archive (.zip .tar and
packed tars), which may be packed itself. Archives within archives are listed and left out.
"""

import tempfile
import threading
from pathlib import Path
from typing import BinaryIO, cast

from lightlm.data.characters.file_checks import explain_unreadable
from lightlm.data.formats.archive_members import (
    ARCHIVE_SUFFIXES,
    OTHER_ARCHIVES,
    TAR_PACKINGS,
    Member,
)
from lightlm.data.formats.archive_members import split_suffix as split_suffix
from lightlm.data.formats.packed_streams import CHUNK_BYTES, STREAM_SUFFIXES, unpack_stream
from lightlm.data.formats.tar_archive import TarArchive
from lightlm.data.formats.zip_archive import ZipArchive
from lightlm.errors import DatasetError

PACKED_SUFFIXES = (*STREAM_SUFFIXES, *ARCHIVE_SUFFIXES)
UNREAD_PACKED_SUFFIXES = OTHER_ARCHIVES

SEEKABLE_SUFFIXES = (".parquet",)
"""Formats that are not read from start to end: their unpacked bytes lie in memory, or in a nameless
temporary file.
"""

SPOOLED_MEMORY_BYTES = 1 << 26
SPOOLED_BYTES = 1 << 32
"""Bytes of such an input that stay in memory, and that are unpacked at all."""


class _Shelf:
    """The archive that was read last, kept open for its next member."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: tuple[str, int, int] | None = None
        self._archive: ZipArchive | TarArchive | None = None

    def list_members(self, path: Path) -> list[Member]:
        with self._lock, explain_unreadable(path):
            return list(self._open(path).members)

    def open_member(self, path: Path, member: Member) -> BinaryIO:
        with self._lock, explain_unreadable(path):
            return self._open(path).open_member(member)

    def close(self) -> None:
        with self._lock:
            self._close()

    def _open(self, path: Path) -> ZipArchive | TarArchive:
        status = path.stat()
        key = (str(path), status.st_mtime_ns, status.st_size)
        if self._archive is None or self._key != key:
            self._close()
            packing = split_suffix(path.name)[1]
            self._archive = (
                ZipArchive(path) if packing == ".zip" else TarArchive(path, TAR_PACKINGS[packing])
            )
            self._key = key
        return self._archive

    def _close(self) -> None:
        if self._archive is not None:
            self._archive.close()
        self._archive = None


_SHELF = _Shelf()


def list_members(path: Path) -> list[Member]:
    """Return the files in an archive in their order, those that are left out with the reason.

    The names of a packed tar are known once all of it was unpacked.

    Raises:
        DatasetError: damaged, encrypted, or it expands too far.
    """
    return _SHELF.list_members(path)


def open_packed(path: Path, member: Member | None = None) -> BinaryIO:
    """Return the unpacked bytes of a file, or of one member of an archive, from their start.

    Reading them raises DatasetError where they are damaged, end early or expand too far. They are
    forward only, but for formats that need more (`SEEKABLE_SUFFIXES`).

    Raises:
        DatasetError: a member that is left out, or an archive without one.
    """
    name = str(path) if member is None else f"{path}:{member.name}"
    suffix, packing = split_suffix(path.name if member is None else member.name)
    if member is not None and member.left_out is not None:
        raise DatasetError(f"{name} is left out: {member.left_out}")
    if packing in ARCHIVE_SUFFIXES:
        raise DatasetError(f"{name} is an archive; name one of its members")

    if member is not None:
        stream = _SHELF.open_member(path, member)
    else:
        stream = cast(BinaryIO, path.open("rb"))
        if not packing:
            return stream

    unpacked = unpack_stream(stream, packing, name) if packing else stream
    return _spool(unpacked, name) if suffix in SEEKABLE_SUFFIXES else unpacked


def open_unpacked(stream: BinaryIO, name: str) -> BinaryIO:
    """Return the unpacked bytes of a stream, as its name says; as they are if it is not packed."""
    suffix, packing = split_suffix(Path(name).name)
    if not packing:
        return stream
    unpacked = unpack_stream(stream, packing, name)
    return _spool(unpacked, name) if suffix in SEEKABLE_SUFFIXES else unpacked


def close_archives() -> None:
    """Close the archive that was read last, which is kept open for its next member."""
    _SHELF.close()


def _spool(stream: BinaryIO, name: str) -> BinaryIO:
    """Return the bytes of a stream in a file that can be read anywhere, and that vanishes when it
    is closed.
    """
    spooled = tempfile.SpooledTemporaryFile(max_size=SPOOLED_MEMORY_BYTES)  # noqa: SIM115 - the caller closes it
    size = 0
    with stream:
        while block := stream.read(CHUNK_BYTES):
            size += len(block)
            if size > SPOOLED_BYTES:
                spooled.close()
                raise DatasetError(
                    f"{name} expands to more than {SPOOLED_BYTES >> 30} GB; unpack it and give "
                    "the file"
                )
            spooled.write(block)

    spooled.seek(0)
    return cast(BinaryIO, spooled)
