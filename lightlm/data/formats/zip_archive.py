"""Members of a .zip, read in place. Encrypted ones, links and rare methods of packing are listed
and left out.
"""

import io
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from lightlm.data.formats.archive_members import (
    MAX_MEMBERS,
    Member,
    find_fault,
    format_many,
    show_name,
)
from lightlm.data.formats.packed_streams import ByteStream, check_expansion
from lightlm.errors import DatasetError
from lightlm.redaction import first_line

DIRECTORY_BYTES = 1 << 27
"""Bytes of a zip's table of members, read whole: about 1,000,000 names."""

ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
"""Methods of a zip that are read; LZMA would let a member ask for 4 GB of memory."""


class ZipArchive:
    """A zip file, opened once for all of its members."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._by_index: dict[int, zipfile.ZipInfo] = {}
        try:
            _check_directory(path)
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError) as error:
            raise DatasetError(
                f"{path} is no whole zip file ({first_line(error)}); download or pack it again"
            ) from None
        self.members = self._list_members()

    def open_member(self, member: Member) -> BinaryIO:
        """Return a member's bytes; reading them raises DatasetError where they are damaged."""
        name = f"{self._path}:{member.name}"
        try:
            stream = self._zip.open(self._by_index[member.index], mode="r")
        except (
            zipfile.BadZipFile,
            RuntimeError,
            NotImplementedError,
            struct.error,
            ValueError,
        ) as error:
            raise DatasetError(
                f"{name} cannot be unpacked ({first_line(error)}); pack the zip again"
            ) from None

        return _ZipStream(cast(BinaryIO, stream), name).buffered()

    def close(self) -> None:
        """Close the file; streams of members that are open stay so."""
        self._zip.close()

    def _list_members(self) -> list[Member]:
        infos = [info for info in self._zip.infolist() if not info.filename.endswith("/")]
        check_expansion(
            sum(info.file_size for info in infos), self._path.stat().st_size, str(self._path)
        )
        if len(infos) > MAX_MEMBERS:
            raise DatasetError(format_many(self._path, len(infos)))

        if infos and all(info.flag_bits & 1 for info in infos):
            raise DatasetError(
                f"{self._path} is encrypted; unpack it with its password and give the folder"
            )

        last = {info.filename: index for index, info in enumerate(infos)}
        members = []
        for index, info in enumerate(infos):
            self._by_index[index] = info
            name = _decode_zip_name(info)
            left_out = find_fault(name) or _find_zip_fault(info)
            if left_out is None and last[info.filename] != index:
                left_out = "a later member has the same name"
            members.append(Member(show_name(name), info.file_size, left_out, index))

        return members


class _ZipStream(ByteStream):
    """A member of a zip, with its failures in words."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._name = name

    def take(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except EOFError:
            raise DatasetError(
                f"{self._name} ends in the middle; download or pack the zip again"
            ) from None
        except (zipfile.BadZipFile, zlib.error, OSError) as error:
            raise DatasetError(
                f"{self._name} is damaged ({first_line(error)}); download or pack the zip again"
            ) from None

    def close(self) -> None:
        self._stream.close()
        super().close()


def _find_zip_fault(info: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "a link"
    if kind not in (0, stat.S_IFREG):
        return "a device or a pipe"
    if info.flag_bits & 1:
        return "encrypted"

    if info.compress_type not in ZIP_METHODS:
        return (
            f"packed by method {info.compress_type}, which is not read; pack it again with deflate"
        )

    return None


def _check_directory(path: Path) -> None:
    """Refuse a zip whose table of members memory may not hold; zipfile reads it whole."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - (1 << 16) - 22 - 20))
        tail = file.read()
        start = tail.rfind(b"PK\x05\x06")
        if start < 0 or len(tail) < start + 22:
            raise zipfile.BadZipFile("its end is missing" if size else "it is empty")
        count, table = struct.unpack_from("<HI", tail, start + 10)
        if count == 0xFFFF or table == 0xFFFFFFFF:
            locator = tail.rfind(b"PK\x06\x07", 0, start)
            if locator >= 0 and len(tail) >= locator + 16:
                file.seek(min(size, struct.unpack_from("<Q", tail, locator + 8)[0]))
                record = file.read(56)
                if record[:4] == b"PK\x06\x06" and len(record) == 56:
                    table = struct.unpack_from("<Q", record, 40)[0]

    if table > DIRECTORY_BYTES and table != 0xFFFFFFFF:
        raise DatasetError(
            f"{path} has a table of members of {table / 1e6:,.0f} MB; unpack it and give the folder"
        )


def _decode_zip_name(info: zipfile.ZipInfo) -> str:
    """Return a member's name; many programs write UTF-8 without the flag that says so."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename
