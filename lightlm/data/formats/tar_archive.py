"""Members of a .tar, packed or not, read in place. Links, devices and sparse files are listed and
left out.

A packed tar can only be read from its start: it is read on from where the last member ended, and
small members are kept for a while, so that reading all members in their order, some times each, is
one pass.
"""

import io
import tarfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

from lightlm.data.formats.archive_members import (
    MAX_MEMBERS,
    Member,
    find_fault,
    format_many,
    show_name,
)
from lightlm.data.formats.packed_streams import CHUNK_BYTES, ByteStream, unpack_stream
from lightlm.errors import DatasetError
from lightlm.redaction import first_line

HEADER_BYTES = 1 << 20
"""Bytes that a tar's header may ask for at once: long names and PAX records take a few kB."""

KEPT_BYTES = 1 << 26
KEPT_MEMBER_BYTES = 1 << 24
"""Bytes of members of a compressed tar that are kept in memory, together and each."""


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
            return _Region(stream, member.size, name, stream.close).buffered()

        if member.index in self._kept:
            self._kept.move_to_end(member.index)
            return io.BytesIO(self._kept[member.index])

        cursor = self._reach(member.index)
        region = _Region(cursor.stream, member.size, name, lambda: self._give_back(cursor))
        if member.size > KEPT_MEMBER_BYTES:
            return region.buffered()

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
        """Return a cursor that stands at the data of a member; it belongs to the caller until it is
        given back.
        """
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
                    raise DatasetError(format_many(self._path, index + 1))
                if info.isdir():
                    continue
                name = _decode_tar_name(info.name)
                left_out = find_fault(name) or _find_tar_fault(info)
                self._offsets[index] = info.offset_data
                last[name] = index
                found.append(Member(show_name(name), info.size, left_out, index))
        finally:
            cursor.close()

        later = {show_name(name): index for name, index in last.items()}
        return [
            Member(
                member.name,
                member.size,
                member.left_out or "a later member has the same name",
                member.index,
            )
            if later[member.name] != member.index
            else member
            for member in found
        ]


class _TarCursor:
    """A tar that is read forward only, member by member."""

    def __init__(self, path: Path, packing: str) -> None:
        self._path = path
        raw = cast(BinaryIO, path.open("rb"))
        self.stream = _ForwardStream(
            unpack_stream(raw, packing, str(path)) if packing else raw, str(path)
        )
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
                    fileobj=cast(Any, self.stream),
                    mode="r",
                    encoding="utf-8",
                    errors="surrogateescape",
                )
            info = self._tar.next()
        except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as error:
            raise DatasetError(
                f"{self._path} is no whole tar archive ({first_line(error)}); download or pack it "
                "again"
            ) from None

        # tarfile keeps every member, and takes a damaged header for the end.
        self._tar.members.clear()
        if info is None and self.stream.last_block.strip(b"\0"):
            raise DatasetError(
                f"{self._path} is damaged after its member {self.next_index}; download or pack it "
                "again"
            )

        self.next_index += 1
        if info is not None and self.stream.tell() < info.offset_data:
            self.stream.seek(info.offset_data)

        return info

    def close(self) -> None:
        self.stream.close()


class _ForwardStream:
    """What tarfile needs of a file, of a stream that only goes forward and hands out little at a
    time.
    """

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


class _Region(ByteStream):
    """The next `size` bytes of a stream."""

    def __init__(self, stream: Any, size: int, name: str, when_closed: Callable[[], None]) -> None:
        self._stream = stream
        self._left = size
        self._name = name
        self._when_closed = when_closed

    def take(self, size: int) -> bytes:
        wanted = min(size, self._left, HEADER_BYTES)
        data = self._stream.read(wanted)
        if wanted and not data:
            raise DatasetError(
                f"{self._name} ends in the middle; download or pack the archive again"
            )
        self._left -= len(data)
        return data

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._when_closed()


def _find_tar_fault(info: tarfile.TarInfo) -> str | None:
    if info.issym() or info.islnk():
        return "a link"
    if not info.isfile():
        return "a device or a pipe"
    if info.issparse():
        return "a sparse file; unpack it first"
    return None


def _decode_tar_name(name: str) -> str:
    """Return a member's name; bytes that are no UTF-8 are read as Latin-1."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogateescape").decode("latin-1")
    return name
