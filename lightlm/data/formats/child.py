"""The child process that parses documents under limits: bytes in, text out, one document file after
the other.

Its parent (formats) kills it where a file takes too long. Nothing heavy is imported: it starts in
about 0.1 s. It can write no file, and a file that needs more memory than its limit ends in a
refusal of that file.
"""

import contextlib
import io
import json
import os
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

from lightlm.errors import DatasetError

MEMORY_BYTES = 2 << 30
"""Address space of the child: eight times the largest file. Linux enforces it; macOS and Windows
know no such limit.
"""

FILE_BYTES = 1 << 28
"""Bytes of a file that is parsed as a whole; a mailbox is read message by message, whatever its
size.
"""

BLOCK_BYTES = 1 << 16

PART_CHARACTERS = 1 << 19
"""Characters of text that are sent at a time."""

LENGTH = struct.Struct("<I")
ABORTED = 0xFFFFFFFF
"""In place of a length: the parent could not read the file to its end."""

PART = b"P"
END = b"E"
FINISHED = b"F"
REFUSED = b"X"
LAST = b"L"
"""Kinds of answers: a part of a document, its end, the end of the file, why the file cannot be
read, and the same from a child that ends with it.
"""

Extract = Callable[[BinaryIO], Iterator[str | None]]
"""Yields parts of documents, and None at the end of each document."""


class _Input(io.RawIOBase):
    """The bytes of one file, as the parent sends them in blocks."""

    def __init__(self, requests: BinaryIO) -> None:
        self._requests = requests
        self._left = 0
        self.is_over = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        if self.is_over or (not self._left and not self._begin_block()):
            return 0
        data = self._requests.read(min(len(view), self._left))
        if not data:
            raise EOFError("the parent ended")
        view[: len(data)] = data
        self._left -= len(data)
        return len(data)

    def drain(self) -> None:
        """Read what the extraction left."""
        buffer = bytearray(BLOCK_BYTES)
        with contextlib.suppress(DatasetError):
            while self.readinto(buffer):
                pass

    def _begin_block(self) -> bool:
        header = self._requests.read(LENGTH.size)
        if len(header) < LENGTH.size:
            raise EOFError("the parent ended")
        length = LENGTH.unpack(header)[0]
        self.is_over = length in (0, ABORTED)
        if length == ABORTED:
            raise DatasetError("could not be read to its end")
        self._left = 0 if self.is_over else length
        return not self.is_over


def choose_extract(kind: str) -> Extract:
    """Return what extracts the documents of a kind of file, imported only now."""
    from lightlm.data.formats import book_text, mail_text, markup_text, office_text, pdf_text

    whole: dict[str, Callable[[bytes], Iterator[str | None]]] = {
        "page": markup_text.iterate_page,
        "subtitles": markup_text.iterate_subtitles,
        "notebook": markup_text.iterate_notebook,
        "docx": office_text.iterate_docx,
        "odt": office_text.iterate_odt,
        "epub": book_text.iterate_epub,
        "pdf": pdf_text.iterate_pdf,
        "message": mail_text.iterate_message,
    }

    if kind == "mailbox":
        return mail_text.iterate_messages

    return lambda stream: whole[kind](read_whole(stream))


def read_whole(stream: BinaryIO, name: str = "") -> bytes:
    """Return all bytes of a file; the refusal begins with its name, which in the child the parent
    adds.

    Raises:
        DatasetError: more than are parsed as a whole.
    """
    blocks: list[bytes] = []
    size = 0
    while block := stream.read(BLOCK_BYTES):
        blocks.append(block)
        size += len(block)
        if size > FILE_BYTES:
            raise DatasetError(
                f"{name} has more than {FILE_BYTES >> 20} MB; divide it into several files".lstrip()
            )
    return b"".join(blocks)


def limit_resources(memory_bytes: int) -> None:
    """Bound this process's memory, and forbid it to write files, where the system can do so."""
    try:
        import resource
    except ImportError:  # Windows
        return

    for kind, limit in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        with contextlib.suppress(OSError, ValueError):  # macOS takes no limit of the address space
            resource.setrlimit(
                kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)
            )


def answer(extract: Extract, source: _Input, answers: BinaryIO) -> bool:
    """Send the documents of a file; return whether the process is fit for another one."""
    kind = FINISHED
    refusal = ""
    try:
        for part in extract(cast(BinaryIO, io.BufferedReader(source, BLOCK_BYTES))):
            if part is None:
                _send(answers, END)
                continue
            for start in range(0, len(part), PART_CHARACTERS):
                _send(
                    answers, PART, part[start : start + PART_CHARACTERS].encode("utf-8", "replace")
                )
    except DatasetError as error:
        kind = REFUSED
        refusal = str(error)
    except MemoryError:
        kind = LAST
        refusal = "needs too much memory to be read; divide it or convert it to text"
    except RecursionError:
        kind = REFUSED
        refusal = "is nested too deeply; convert it to text"
    except (BrokenPipeError, EOFError) as error:
        if isinstance(error, BrokenPipeError) or not source.is_over:
            raise
        kind = REFUSED
        refusal = "ends in the middle; download or save it again"
    except Exception as error:  # noqa: BLE001 - parsers fail on hostile files in every way; the file is refused
        kind = REFUSED
        refusal = (
            f"cannot be read ({type(error).__name__}: {str(error)[:200]}); save it anew or "
            "convert it to text"
        )

    if kind != LAST:
        source.drain()

    _send(answers, kind, refusal.encode("utf-8", "replace"))
    return kind != LAST


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer one request after the other, until they end."""
    while line := requests.readline(1 << 12):
        source = _Input(requests)
        if not answer(choose_extract(json.loads(line)["kind"]), source, answers):
            return


def _send(answers: BinaryIO, kind: bytes, payload: bytes = b"") -> None:
    answers.write(kind + LENGTH.pack(len(payload)) + payload)
    if kind != PART or len(payload) > 1 << 12:
        answers.flush()


def main() -> None:
    """Serve the parent on the standard streams; what a library prints goes nowhere."""
    limit_resources(int(sys.argv[1]) if len(sys.argv) > 1 else MEMORY_BYTES)
    answers = cast(BinaryIO, os.fdopen(os.dup(1), "wb"))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with contextlib.suppress(BrokenPipeError, EOFError, KeyboardInterrupt):
        serve(cast(BinaryIO, sys.stdin.buffer), answers)
    with contextlib.suppress(OSError):
        answers.close()


if __name__ == "__main__":
    main()
