"""A file of the Hugging Face Hub, read by HTTP ranges: each range is whole, or asked for again.

huggingface_hub has HfFileSystem for this. It asks for more than the ranges, takes whatever length
comes, and reads all of a file that a server sends instead of a range.
"""

import importlib
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, BinaryIO, Protocol, cast

from lightlm.redaction import first_line

WAITS = (1.0, 2.0, 4.0, 8.0, 8.0)
"""Seconds before each further try of a range; huggingface_hub waits as long."""

LONGEST_WAIT = 60.0
"""Seconds that a server may ask to wait before the next try."""

ANSWER_SECONDS = 20.0
"""Seconds without a byte after which a connection counts as broken."""

BUSY = (408, 429, 500, 502, 503, 504)
"""Statuses that a later try may not get."""


class HubUnreachable(Exception):
    """The Hub did not answer within the time given; `args[0]` says how."""


class _TryAgain(Exception):
    """A range did not come; `args` are the reason and the seconds to wait for at least."""


class Fetched(Protocol):
    """A file elsewhere, of which ranges can be had."""

    @property
    def size(self) -> int:
        """Return its bytes."""
        ...

    def fetch(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to `stop`, all of them."""
        ...


@dataclass
class RemoteFile:
    """A file at an address. Its `size` in bytes is checked with each range; `num_bytes` came."""

    url: str
    name: str
    size: int
    waits: Sequence[float] = WAITS
    num_bytes: int = 0

    def __post_init__(self) -> None:
        self._lock = Lock()

    def open(self) -> BinaryIO:
        """Return its bytes from the start. Each reading is one range: buffer what reads little."""
        return open_ranges(self)

    def fetch(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to `stop`, all of them.

        Raises:
            HubUnreachable: they did not come in any try, or the file is another one.
        """
        for wait in (*self.waits, None):
            try:
                data = self._ask(start, stop)
            except _TryAgain as reason:
                why, seconds = reason.args
                if wait is None:
                    raise HubUnreachable(
                        f"{self.name}: {why}, after {len(self.waits) + 1} tries"
                    ) from None
                time.sleep(max(wait, seconds))
            else:
                with self._lock:
                    self.num_bytes += len(data)
                return data
        raise AssertionError("the last try returns or raises")

    def _ask(self, start: int, stop: int) -> bytes:
        from huggingface_hub import get_session
        from huggingface_hub.utils import build_hf_headers

        wanted = f"bytes {start}-{stop - 1}/{self.size}"
        headers = build_hf_headers() | {
            "Range": f"bytes={start}-{stop - 1}",
            "Accept-Encoding": "identity",
        }
        try:
            with get_session().stream(
                "GET", self.url, headers=headers, timeout=ANSWER_SECONDS, follow_redirects=True
            ) as answer:
                self._check(answer, wanted)
                data = _read_body(answer, stop - start)
        except connection_error() as error:
            raise _TryAgain(first_line(error), 0.0) from None

        if len(data) != stop - start:
            raise _TryAgain(f"{len(data):,} bytes came instead of {stop - start:,}", 0.0)
        return data

    def _check(self, answer: Any, wanted: str) -> None:
        """Refuse an answer that is not the range `wanted`, before its bytes are read."""
        status = answer.status_code
        if status in BUSY:
            raise _TryAgain(f"the Hub answers {status}", _read_wait(answer.headers))
        if status == 200:
            raise HubUnreachable(f"{self.name}: the server sends whole files, not ranges of them")
        if status != 206:
            raise HubUnreachable(f"{self.name}: the Hub answers {status}")
        found = answer.headers.get("Content-Range", "")
        if found != wanted:
            raise HubUnreachable(f"{self.name}: wanted {wanted}, the Hub answers {found!r}")
        packing = answer.headers.get("Content-Encoding", "identity")
        if packing != "identity":
            raise HubUnreachable(f"{self.name}: the Hub sends {packing}, which was not asked for")


def open_ranges(file: Fetched) -> BinaryIO:
    """Return the bytes of a file elsewhere. Each reading is one range."""
    return cast(BinaryIO, _Ranges(file))


class _Ranges(io.RawIOBase):
    """The bytes of a remote file as a file that can be read anywhere."""

    def __init__(self, file: Fetched) -> None:
        self._file = file
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._file.size}[whence]
        self._place = max(0, origin + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        stop = min(self._file.size, self._place + len(view))
        if stop <= self._place:
            return 0
        data = self._file.fetch(self._place, stop)
        view[: len(data)] = data
        self._place = stop
        return len(data)


def connection_error() -> type[Exception]:
    """Return the root of the connection errors of whichever HTTP library huggingface_hub uses
    (httpx, httpx2).
    """
    from huggingface_hub import get_session

    library = importlib.import_module(type(get_session()).__module__.partition(".")[0])
    return library.HTTPError


def _read_body(answer: Any, size: int) -> bytes:
    """Return an answer's bytes; of one that has more than `size`, little more."""
    data = bytearray()
    for piece in answer.iter_raw():
        data += piece
        if len(data) > size:
            break
    return bytes(data)


def _read_wait(headers: Any) -> float:
    """Return the seconds that an answer asks to wait; 0 where it does not say so in seconds."""
    try:
        return min(LONGEST_WAIT, max(0.0, float(headers.get("Retry-After", 0))))
    except ValueError:
        return 0.0
