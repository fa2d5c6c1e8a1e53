"""Bytes of .gz, .bz2, .xz and .zst as a stream: one pass, constant memory, a bound on what they
expand to.

zlib, bz2 and lzma come with Python; zstd is pyarrow's, which every installation has. Several packed
parts in one file follow each other, as `cat a.gz b.gz` writes them. A stream that ends early or is
damaged is refused by name.
"""

import bz2
import io
import lzma
import zlib
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol, cast

from lightlm.errors import DatasetError

STREAM_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")

CHUNK_BYTES = 1 << 17
"""Bytes that are read and unpacked at a time; larger ones are no faster."""

FREE_BYTES = 1 << 28
"""Bytes that any input may expand to, 0.3 to 1 s of unpacking; the ratio counts only
beyond them.
"""

MAX_RATIO = 200
"""Bytes unpacked for each packed byte. Text packs 2- to 15-fold, logs of equal lines up to
100-fold; a bomb of zeros reaches 1,000 with gzip and more with the others.
"""

MAX_UNPACKED_BYTES = 1 << 40
"""Bytes that one input may expand to, whatever its ratio: 1 TB, an hour of unpacking."""

WINDOW_BYTES = 1 << 28
"""Memory that an .xz file may ask of its reader; `xz -9` asks for 65 MB. zstd's own bound is 128
MB.
"""

MAGIC = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ\0"}


class _Decoder(Protocol):
    """What zlib, bz2 and lzma have in common, once zlib's is wrapped."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...


class _GzipDecoder:
    """zlib's decoder, which hands back the input that it did not use yet, kept here."""

    def __init__(self) -> None:
        # 31: a gzip header, and the CRC at the end is checked
        self._decoder = zlib.decompressobj(wbits=31)
        self._rest = b""

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._rest

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        unpacked = self._decoder.decompress(self._rest + data, max_length)
        self._rest = self._decoder.unconsumed_tail
        return unpacked


DECODERS: dict[str, Callable[[], _Decoder]] = {
    ".gz": _GzipDecoder,
    ".bz2": bz2.BZ2Decompressor,
    ".xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=WINDOW_BYTES),
}


class ByteStream(io.RawIOBase):
    """Bytes that are read forward only, each reading a part of them."""

    @abstractmethod
    def take(self, size: int) -> bytes:
        """Return at most `size` bytes; none at the end."""

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the start of a buffer; return how many bytes."""
        view = memoryview(buffer)
        data = self.take(len(view))
        view[: len(data)] = data
        return len(data)

    def buffered(self) -> BinaryIO:
        """Return the stream, read in larger blocks."""
        return cast(BinaryIO, io.BufferedReader(self, CHUNK_BYTES))


class _Counted(ByteStream):
    """A stream that counts the bytes that were read of it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.bytes_read = 0

    def take(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.bytes_read += len(data)
        return data

    def close(self) -> None:
        self._stream.close()
        super().close()


class _PartReader:
    """Unpacks the parts of a .gz, .bz2 or .xz file one after the other."""

    def __init__(self, packed: io.RawIOBase, packing: str) -> None:
        self._packed = packed
        self._packing = packing
        self._decoder = DECODERS[packing]()
        self._waiting = b""

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; none at the end.

        Raises:
            EOFError: the file ends within a part.
            OSError, lzma.LZMAError, zlib.error: it is damaged.
        """
        while True:
            if self._decoder.eof and not self._begin_next():
                return b""

            data = self._waiting
            self._waiting = b""
            if not data and self._decoder.needs_input:
                data = self._packed.read(CHUNK_BYTES) or b""
            is_spent = not data and self._decoder.needs_input

            unpacked = self._decoder.decompress(data, size)
            if unpacked:
                return unpacked
            if is_spent and not self._decoder.eof:
                raise EOFError

    def _begin_next(self) -> bool:
        """Start the next part; return False at the end of the file, zero bytes of
        padding included.
        """
        rest = self._decoder.unused_data.lstrip(b"\0")
        while len(rest) < len(MAGIC[self._packing]):
            more = self._packed.read(CHUNK_BYTES)
            if not more:
                break
            rest = (rest + more).lstrip(b"\0")

        if not rest:
            return False
        if not rest.startswith(MAGIC[self._packing]):
            raise OSError("other bytes follow the packed ones")

        self._decoder = DECODERS[self._packing]()
        self._waiting = rest
        return True


class _ZstdReader:
    """Unpacks a .zst file by pyarrow."""

    def __init__(self, packed: io.RawIOBase) -> None:
        import pyarrow as pa

        self._stream: Any = pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), "zstd")

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; none at the end.

        Raises:
            EOFError: the file ends early.
            OSError: it is damaged.
        """
        try:
            return self._stream.read(size)
        except OSError as error:
            if "Truncated" in str(error):
                raise EOFError from None
            raise


class _Unpacked(ByteStream):
    """The unpacked bytes, bounded, with every failure in words."""

    def __init__(self, stream: BinaryIO, packing: str, name: str) -> None:
        self._name = name
        self._packed = _Counted(stream)
        self._reader = (
            _ZstdReader(self._packed) if packing == ".zst" else _PartReader(self._packed, packing)
        )
        self._size = 0

    def take(self, size: int) -> bytes:
        try:
            data = self._reader.read(size)
        except EOFError:
            raise DatasetError(
                f"{self._name} ends in the middle; download or pack it again"
            ) from None
        except (zlib.error, lzma.LZMAError, OSError) as error:
            raise DatasetError(
                f"{self._name} cannot be unpacked: {_explain(error, self._name)}"
            ) from None

        self._size += len(data)
        check_expansion(self._size, self._packed.bytes_read, self._name)
        return data

    def close(self) -> None:
        self._packed.close()
        super().close()


def unpack_stream(stream: BinaryIO, packing: str, name: str) -> BinaryIO:
    """Return the unpacked bytes of a stream, whose `packing` is one of `STREAM_SUFFIXES`; it closes
    the stream.

    Reading it raises DatasetError with the `name` where the packed data is damaged, ends early, or
    expands too far.
    """
    return _Unpacked(stream, packing, name).buffered()


def check_expansion(unpacked: int, packed: int, name: str) -> None:
    """Refuse an input that expands too far.

    Raises:
        DatasetError: with the ratio, and what to do.
    """
    if unpacked > MAX_UNPACKED_BYTES:
        raise DatasetError(
            f"{name} expands to more than {MAX_UNPACKED_BYTES >> 40} TB; unpack it, and give a "
            "part of what comes out"
        )
    if unpacked > FREE_BYTES and unpacked > MAX_RATIO * max(1, packed):
        raise DatasetError(
            f"{name} expands to {unpacked // max(1, packed):,} times its size, more than "
            f"{MAX_RATIO} times: it looks "
            "made to fill memory and disks; if you know it, unpack it and give what comes out"
        )


def _explain(error: Exception, name: str) -> str:
    """Return why a packed file cannot be read, and what to do."""
    words = str(error)
    if "too much memory" in words:  # zstd, written with --long=28 to 31
        return f"it asks for more than 128 MB of memory; unpack it: zstd -d --long=31 {name}"
    if "Memory usage limit" in words:
        return f"it asks for more than {WINDOW_BYTES >> 20} MB of memory; unpack it: xz -dk {name}"
    return (
        f"it is damaged or something else than its name says ({words}); download or pack it again"
    )
