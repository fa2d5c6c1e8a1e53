"""Members of .zip and .tar archives, read in place: none is ever written to the disk under its own name.

Links, devices, names that lead out, encrypted members, hidden files and archives within archives are listed with the
reason, and left out. A compressed tar can only be read from its start: it is read on from where the last member ended,
and small members are kept for a while, so that reading all members in their order, some times each, is one pass.
"""

import io
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from lightlm.data.packed_streams import CHUNK_BYTES, STREAM_SUFFIXES, check_expansion, unpack_stream
from lightlm.errors import DatasetError

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

OTHER_ARCHIVES = (".7z", ".rar", ".lz4", ".br", ".lzma", ".lz", ".z", ".cab", ".iso", ".jar", ".zipx", ".cpio")
"""Suffixes of packed files that are not read."""

MAX_MEMBERS = 500_000
"""Members of one archive, each about 300 bytes of memory; Project Gutenberg has 75,000 books."""

DIRECTORY_BYTES = 1 << 27
"""Bytes of a zip's table of members, read whole: about 1,000,000 names."""

HEADER_BYTES = 1 << 20
"""Bytes that a tar's header may ask for at once: long names and PAX records take a few kB."""

KEPT_BYTES = 1 << 26
KEPT_MEMBER_BYTES = 1 << 24
"""Bytes of members of a compressed tar that are kept in memory, together and each."""

ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
"""Methods of a zip that are read; LZMA would let a member ask for 4 GB of memory."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive: its name there, its size in bytes, and why it is left out (None: it can be read)."""

    name: str
    size: int
    left_out: str | None = None
    index: int = 0


def split_suffix(name: str | Path) -> tuple[str, str]:
    """Return a name's own suffix and that of its packing, in small letters: ("a.jsonl.gz") -> (".jsonl", ".gz")."""
    parts = PurePosixPath(str(name).replace("\\", "/")).name.lower()
    for packing in sorted((*ARCHIVE_SUFFIXES, *STREAM_SUFFIXES), key=len, reverse=True):
        if parts.endswith(packing) and parts != packing:
            if packing in ARCHIVE_SUFFIXES:
                return "", packing
            return PurePosixPath(parts.removesuffix(packing)).suffix, packing
    return PurePosixPath(parts).suffix, ""


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
                f"{path} is no whole zip file ({_first_line(error)}); download or pack it again"
            ) from None
        self.members = self._list_members()

    def open_member(self, member: Member) -> BinaryIO:
        """Return a member's bytes; reading them raises DatasetError where they are damaged."""
        name = f"{self._path}:{member.name}"
        try:
            stream = self._zip.open(self._by_index[member.index])
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, struct.error, ValueError) as error:
            raise DatasetError(f"{name} cannot be unpacked ({_first_line(error)}); pack the zip again") from None
        return _buffer(_ZipStream(cast(BinaryIO, stream), name))

    def close(self) -> None:
        """Close the file; streams of members that are open stay so."""
        self._zip.close()

    def _list_members(self) -> list[Member]:
        infos = [info for info in self._zip.infolist() if not info.is_dir()]
        check_expansion(sum(info.file_size for info in infos), self._path.stat().st_size, str(self._path))
        if len(infos) > MAX_MEMBERS:
            raise DatasetError(_say_many(self._path, len(infos)))
        if infos and all(info.flag_bits & 1 for info in infos):
            raise DatasetError(f"{self._path} is encrypted; unpack it with its password and give the folder")

        last = {info.filename: index for index, info in enumerate(infos)}
        members = []
        for index, info in enumerate(infos):
            self._by_index[index] = info
            name = _decode_zip_name(info)
            left_out = find_fault(name) or _find_zip_fault(info)
            if left_out is None and last[info.filename] != index:
                left_out = "a later member has the same name"
            members.append(Member(_show_name(name), info.file_size, left_out, index))
        return members


class TarArchive:
    """A tar file, packed or not."""

    def __init__(self, path: Path, packing: str) -> None:
        self._path = path
        self._packing = packing
        self._cursor: _TarCursor | None = None
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._offsets: dict[int, int] = {}
        self._is_closed = False
        self.members = self._list_members()

    def open_member(self, member: Member) -> BinaryIO:
        """Return a member's bytes; reading them raises DatasetError where they are damaged."""
        name = f"{self._path}:{member.name}"
        if not self._packing:
            stream = cast(BinaryIO, self._path.open("rb"))
            stream.seek(self._offsets[member.index])
            return _buffer(_Region(stream, member.size, name, stream.close))
        if member.index in self._kept:
            self._kept.move_to_end(member.index)
            return io.BytesIO(self._kept[member.index])

        cursor = self._reach(member.index)
        region = _Region(cursor.stream, member.size, name, lambda: self._give_back(cursor))
        if member.size > KEPT_MEMBER_BYTES:
            return _buffer(region)
        with region:
            self._keep(member.index, region.readall())
        return io.BytesIO(self._kept[member.index])

    def close(self) -> None:
        """Close the file and forget what was kept."""
        self._is_closed = True
        self._kept.clear()
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None

    def _reach(self, index: int) -> "_TarCursor":
        """Return a cursor that stands at the data of a member; it belongs to the caller until it is given back."""
        cursor = self._cursor
        self._cursor = None
        if cursor is not None and cursor.next_index > index:
            cursor.close()
            cursor = None
        cursor = cursor or _TarCursor(self._path, self._packing)
        while cursor.next_index <= index:
            if cursor.advance() is None:
                raise DatasetError(f"{self._path} has changed while it was read; start again")
        return cursor

    def _give_back(self, cursor: "_TarCursor") -> None:
        if self._cursor is not None or self._is_closed:
            cursor.close()
        else:
            self._cursor = cursor

    def _keep(self, index: int, data: bytes) -> None:
        self._kept[index] = data
        while sum(map(len, self._kept.values())) > KEPT_BYTES:
            self._kept.popitem(last=False)

    def _list_members(self) -> list[Member]:
        found: list[Member] = []
        last: dict[str, int] = {}
        cursor = _TarCursor(self._path, self._packing)
        try:
            while (info := cursor.advance()) is not None:
                index = cursor.next_index - 1
                if index >= MAX_MEMBERS:
                    raise DatasetError(_say_many(self._path, index + 1))
                if info.isdir():
                    continue
                name = _decode_tar_name(info.name)
                left_out = find_fault(name) or _find_tar_fault(info)
                self._offsets[index] = info.offset_data
                last[name] = index
                found.append(Member(_show_name(name), info.size, left_out, index))
        finally:
            cursor.close()
        later = {_show_name(name): index for name, index in last.items()}
        return [
            Member(member.name, member.size, member.left_out or "a later member has the same name", member.index)
            if later[member.name] != member.index
            else member
            for member in found
        ]


class _TarCursor:
    """A tar that is read forward only, member by member."""

    def __init__(self, path: Path, packing: str) -> None:
        self._path = path
        raw = cast(BinaryIO, path.open("rb"))
        self.stream = _ForwardStream(unpack_stream(raw, packing, str(path)) if packing else raw, str(path))
        self.next_index = 0
        self._tar: Any = None

    def advance(self) -> tarfile.TarInfo | None:
        """Return the next member, the stream at its data; None at the end.

        Raises:
            DatasetError: the archive is damaged, ends early, or is none.
        """
        try:
            if self._tar is None:
                self._tar = tarfile.TarFile(
                    fileobj=cast(Any, self.stream), mode="r", encoding="utf-8", errors="surrogateescape"
                )
            info = self._tar.next()
        except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as error:
            raise DatasetError(
                f"{self._path} is no whole tar archive ({_first_line(error)}); download or pack it again"
            ) from None
        # tarfile keeps every member, and takes a damaged header for the end.
        self._tar.members.clear()
        if info is None and self.stream.last_block.strip(b"\0"):
            raise DatasetError(f"{self._path} is damaged after its member {self.next_index}; download or pack it again")
        self.next_index += 1
        if info is not None and self.stream.tell() < info.offset_data:
            self.stream.seek(info.offset_data)
        return info

    def close(self) -> None:
        self.stream.close()


class _ForwardStream:
    """What tarfile needs of a file, of a stream that only goes forward and hands out little at a time."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._name = name
        self._position = 0
        self.last_block = b""

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        if position < self._position:
            raise tarfile.ReadError("a header points backward")
        skipped = position - self._position
        while skipped > 0:
            data = self._stream.read(min(skipped, CHUNK_BYTES))
            if not data:
                raise tarfile.ReadError("unexpected end of data")
            skipped -= len(data)
            self._position += len(data)
        return self._position

    def read(self, size: int) -> bytes:
        if not 0 <= size <= HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        data = self._stream.read(size)
        self._position += len(data)
        self.last_block = data[-tarfile.BLOCKSIZE :]
        return data

    def close(self) -> None:
        self._stream.close()


class _Region(io.RawIOBase):
    """The next `size` bytes of a stream."""

    def __init__(self, stream: Any, size: int, name: str, when_closed: Callable[[], None]) -> None:
        self._stream = stream
        self._left = size
        self._name = name
        self._when_closed = when_closed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        wanted = min(len(view), self._left, HEADER_BYTES)
        data = self._stream.read(wanted)
        if wanted and not data:
            raise DatasetError(f"{self._name} ends in the middle; download or pack the archive again")
        view[: len(data)] = data
        self._left -= len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._when_closed()


class _ZipStream(io.RawIOBase):
    """A member of a zip, with its failures in words."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._name = name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        try:
            data = self._stream.read(len(view))
        except EOFError:
            raise DatasetError(f"{self._name} ends in the middle; download or pack the zip again") from None
        except (zipfile.BadZipFile, zlib.error, OSError) as error:
            raise DatasetError(
                f"{self._name} is damaged ({_first_line(error)}); download or pack the zip again"
            ) from None
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


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


def _find_zip_fault(info: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "a link"
    if kind not in (0, stat.S_IFREG):
        return "a device or a pipe"
    if info.flag_bits & 1:
        return "encrypted"
    if info.compress_type not in ZIP_METHODS:
        name = zipfile.compressor_names.get(info.compress_type, f"method {info.compress_type}")
        return f"packed by {name}, which is not read; pack it again"
    return None


def _find_tar_fault(info: tarfile.TarInfo) -> str | None:
    if info.issym() or info.islnk():
        return "a link"
    if not info.isfile():
        return "a device or a pipe"
    if info.issparse():
        return "a sparse file; unpack it first"
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
        raise DatasetError(f"{path} has a table of members of {table / 1e6:,.0f} MB; unpack it and give the folder")


def _decode_zip_name(info: zipfile.ZipInfo) -> str:
    """Return a member's name; many programs write UTF-8 without the flag that says so."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _decode_tar_name(name: str) -> str:
    """Return a member's name; bytes that are no UTF-8 are read as Latin-1."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogateescape").decode("latin-1")
    return name


def _show_name(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def _buffer(stream: io.RawIOBase) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(stream, CHUNK_BYTES))


def _say_many(path: Path, count: int) -> str:
    return f"{path} has {count:,} members or more, at most {MAX_MEMBERS:,} are read; unpack it and give the folder"


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0]
