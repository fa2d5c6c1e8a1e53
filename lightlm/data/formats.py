"""Documents of web pages, notebooks, subtitles, books, office files, PDFs and mail, as plain text.

Which format needs what: .html .ipynb .srt .docx .odt .epub .eml .mbox are read by Python's own parsers, PDF by pypdf
(pure Python: a hostile file cannot corrupt memory; pip install 'lightlm[documents]'). All are parsed in one child
process under limits of memory, time and output, for files are anybody's. .tex .rst .org .adoc and source code are plain
text: a model of them learns their marks, as it does Markdown's.
"""

import atexit
import codecs
import contextlib
import importlib.util
import io
import json
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import BinaryIO, cast

from lightlm.data.decoding import Encoding, Opener, RowCounts, decode_text, find_encoding, find_mark
from lightlm.data.file_checks import LONGEST_ROW_BYTES, explain_unreadable
from lightlm.data.formats_child import ABORTED, END, FILE_BYTES, FINISHED, LAST, LENGTH, PART, REFUSED
from lightlm.errors import DatasetError

DOCUMENT_SUFFIXES = {
    ".html": "page",
    ".htm": "page",
    ".xhtml": "page",
    ".ipynb": "notebook",
    ".srt": "subtitles",
    ".vtt": "subtitles",
    ".docx": "docx",
    ".odt": "odt",
    ".epub": "epub",
    ".pdf": "pdf",
    ".eml": "message",
    ".mhtml": "message",
    ".mht": "message",
    ".mbox": "mailbox",
}
"""Suffix -> the kind of document, all of which `extract_documents` reads."""

PLAIN_SUFFIXES = (".rst", ".tex", ".org", ".adoc", ".asciidoc")
"""Suffixes of texts with marks, read as they stand, as .txt and .md are."""

CODE_SUFFIXES = tuple(
    ".py .pyi .js .mjs .jsx .ts .tsx .c .h .cc .cpp .hpp .cxx .cs .java .kt .scala .go .rs .rb .php .pl .lua .r .jl "
    ".swift .m .sh .bash .ps1 .sql .hs .ml .ex .exs .erl .clj .lisp .el .f90 .pas .vb .dart .zig .asm .s .v .vhd "
    ".css .scss .toml .yaml .yml .ini .cfg .xml .svg .cmake .tf .proto .graphql".split()
)
"""Suffixes of source code, which is plain text; for a person who names it."""

TEXT_KINDS = ("page", "subtitles")
"""Kinds that are bytes of text in some encoding; the others say their own."""

PACKAGES = {"pdf": "pypdf"}
"""Kind -> the package that it needs, of `lightlm[documents]`."""

FILE_SECONDS = 60.0
BYTES_PER_SECOND = 100_000
"""Seconds that a file may take in the child: so many, and one for so many bytes of it. pypdf reads 0.2 to 1 MB of a
PDF of text a second, the other parsers 5 MB and more."""

OUTPUT_BYTES = 1 << 26
OUTPUT_RATIO = 20
"""Bytes of text that a file may give: so many, and so many for each byte of it. XML in .docx packs 10-fold."""

BLOCK_BYTES = 1 << 16
ANSWERS_AHEAD = 8
LONGEST_ANSWER = 1 << 22

WEB_CODECS = {"iso-8859-1": "cp1252", "latin1": "cp1252", "us-ascii": "cp1252", "gb2312": "gb18030", "gbk": "gb18030"}
"""Encodings that browsers take for others. Source: WHATWG Encoding Standard."""

CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]{2,40})""", re.IGNORECASE)
CHARSET_BYTES = 4096


class DocumentReader:
    """One child process that parses document files, started with the first one and anew after a kill."""

    def __init__(self, seconds: float = FILE_SECONDS) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[tuple[bytes, bytes] | None] = queue.Queue()
        self._lock = threading.Lock()

    def extract(self, open_input: Opener, kind: str, name: str) -> Iterator[str]:
        """Yield the documents of one file.

        Raises:
            DatasetError: it cannot be read, or exceeds a limit.
        """
        if not self._lock.acquire(blocking=False):
            # Another file is being read; a generator may hold it for long.
            reader = DocumentReader(self._seconds)
            try:
                yield from reader.extract(open_input, kind, name)
            finally:
                reader.close()
            return
        try:
            yield from self._extract(open_input, kind, name)
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the child."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        while self._answers.get() is not None:  # its reading thread may wait for room
            pass
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):  # what was not sent
                stream.close()
        self._process = None

    def _extract(self, open_input: Opener, kind: str, name: str) -> Iterator[str]:
        feeder = _Feeder(self._start(), open_input, kind, name)
        is_ready = False
        try:
            yield from self._receive(feeder, name)
            is_ready = True
        except DatasetError:
            is_ready = feeder.is_refused
            raise
        finally:
            # A child that was not left at the end of its file cannot take the next one.
            if not is_ready:
                self.close()
            feeder.thread.join()

    def _receive(self, feeder: "_Feeder", name: str) -> Iterator[str]:
        parts: list[bytes] = []
        length = 0
        total = 0
        waited = 0.0
        while True:
            begun = time.monotonic()
            kind, payload = self._next_answer(feeder, waited, name)
            waited += time.monotonic() - begun
            if kind == FINISHED:
                return
            if kind in (REFUSED, LAST):
                feeder.is_refused = kind == REFUSED
                raise feeder.error or DatasetError(f"{name} {payload.decode('utf-8', 'replace')}")

            total += len(payload)
            length += len(payload)
            if total > OUTPUT_BYTES + OUTPUT_RATIO * feeder.bytes_sent or length > LONGEST_ROW_BYTES:
                raise DatasetError(
                    f"{name} gives more than {total / 1e6:,.0f} MB of text from {feeder.bytes_sent / 1e6:,.1f} MB: it "
                    "looks made to fill memory; convert it to text if you know it"
                )
            parts.append(payload)
            if kind == END:
                yield b"".join(parts).decode("utf-8", "replace")
                parts = []
                length = 0

    def _next_answer(self, feeder: "_Feeder", waited: float, name: str) -> tuple[bytes, bytes]:
        """Return the child's next answer, after so many seconds of waiting for earlier ones."""
        begun = time.monotonic()
        while True:
            allowed = self._seconds + feeder.bytes_sent / BYTES_PER_SECOND + feeder.count_source_seconds()
            left = allowed - waited - (time.monotonic() - begun)
            if left <= 0:
                raise DatasetError(f"{name} was given up: its parser needs more than {allowed:,.0f} s; convert it to text")
            try:
                found = self._answers.get(timeout=left)
            except queue.Empty:
                continue
            if found is not None:
                return found
            self._answers.put(None)
            code = self._process.wait() if self._process is not None else 0
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise DatasetError(f"{name} ended its parser ({how}); convert it to text")

    def _start(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        self._answers = queue.Queue(ANSWERS_AHEAD)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "lightlm.data.formats_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # an interrupt is the parent's to answer; the child ends with its input
        )
        threading.Thread(target=_read_answers, args=(self._process.stdout, self._answers), daemon=True).start()
        return self._process


class _Feeder:
    """Sends a file to the child from a thread, while the parent reads what comes back."""

    def __init__(self, process: "subprocess.Popen[bytes]", open_input: Opener, kind: str, name: str) -> None:
        assert process.stdin is not None
        self._pipe = process.stdin
        self._open = open_input
        self._kind = kind
        self._name = name
        self.bytes_sent = 0
        self.error: DatasetError | None = None
        self.is_refused = False
        self._source_seconds = 0.0
        self._reading_since: float | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def count_source_seconds(self) -> float:
        """Return the seconds that the input itself took, which are none of the child's."""
        since = self._reading_since
        return self._source_seconds + (time.monotonic() - since if since is not None else 0.0)

    def _run(self) -> None:
        try:
            self._pipe.write(json.dumps({"kind": self._kind}).encode() + b"\n")
            self._send_file()
            self._pipe.flush()
        except (OSError, ValueError):
            return  # the child ended, or was killed and its pipe closed; the parent says why

    def _send_file(self) -> None:
        try:
            with self._reading():
                stream = self._open()
            with stream:
                while True:
                    with self._reading():
                        block = stream.read(BLOCK_BYTES)
                    self._pipe.write(LENGTH.pack(len(block)) + block)
                    self.bytes_sent += len(block)
                    if not block:
                        return
        except DatasetError as error:
            self.error = error
            self._pipe.write(LENGTH.pack(ABORTED))

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Count the time, and put failures of the disk in words."""
        self._reading_since = time.monotonic()
        try:
            with explain_unreadable(self._name):
                yield
        finally:
            self._source_seconds = self.count_source_seconds()
            self._reading_since = None


def _read_answers(stream: BinaryIO, answers: "queue.Queue[tuple[bytes, bytes] | None]") -> None:
    """Put each answer of the child into a queue, and None at its end."""
    with contextlib.suppress(OSError, ValueError):
        while len(header := stream.read(1 + LENGTH.size)) == 1 + LENGTH.size:
            length = LENGTH.unpack(header[1:])[0]
            if length > LONGEST_ANSWER or header[:1] not in (PART, END, FINISHED, REFUSED, LAST):
                break
            payload = stream.read(length)
            if len(payload) < length:
                break
            answers.put((header[:1], payload))
    answers.put(None)


_SHARED = DocumentReader()
atexit.register(_SHARED.close)


def extract_documents(
    open_input: Opener,
    suffix: str,
    name: str,
    *,
    encoding: Encoding | None = None,
    counts: RowCounts | None = None,
) -> Iterator[str]:
    """Yield the documents of an input; `suffix` is one of `DOCUMENT_SUFFIXES`, `name` the input's for messages.

    Pages and subtitles are decoded by `encoding`, or the one that `find_document_encoding` finds, and what had to be
    replaced is added to `counts`.

    Raises:
        DatasetError: it cannot be read, exceeds a limit, or its package is not installed.
    """
    kind = DOCUMENT_SUFFIXES[suffix]
    check_package(kind, name)
    if kind in TEXT_KINDS:
        found = encoding or find_document_encoding(open_input, suffix, name)
        open_input = _decode_first(open_input, found, counts or RowCounts(), name)
    yield from _SHARED.extract(open_input, kind, name)


def find_document_encoding(open_input: Opener, suffix: str, name: str, named: str | None = None) -> Encoding:
    """Return the encoding of a page or of subtitles; UTF-8 for formats that say their own.

    A page that is no UTF-8 has the encoding that it declares, where its bytes allow that.

    Raises:
        DatasetError: it is unsure.
    """
    kind = DOCUMENT_SUFFIXES[suffix]
    if kind not in TEXT_KINDS:
        return Encoding("utf-8", "mark")
    with explain_unreadable(name), open_input() as stream:
        head = stream.read(FILE_BYTES)
    declared = CHARSET.search(head[:CHARSET_BYTES]) if kind == "page" and named is None else None
    if declared is not None and find_mark(head) is None and not _is_decodable(head, "utf-8"):
        label = declared.group(1).decode("ascii").lower()
        codec = WEB_CODECS.get(label, label)
        if _is_decodable(head, codec):
            return Encoding(codecs.lookup(codec).name, "mark")
    return find_encoding(open_input, name, named)


def _is_decodable(content: bytes, codec: str) -> bool:
    try:
        content.decode(codec)
    except (UnicodeError, LookupError):
        return False
    return True


def check_package(kind: str, name: str) -> None:
    """Refuse a kind of document whose package is not installed.

    Raises:
        DatasetError: with the command that installs it.
    """
    package = PACKAGES.get(kind)
    if package is not None and importlib.util.find_spec(package) is None:
        raise DatasetError(f"{name} needs the package {package}; run `pip install 'lightlm[documents]'`")


def close_reader() -> None:
    """End the child that parses documents; the next document starts another."""
    _SHARED.close()


def _decode_first(open_input: Opener, encoding: Encoding, counts: RowCounts, name: str) -> Opener:
    """Return what opens the same text in UTF-8, decoded once and whole."""
    def open_decoded() -> BinaryIO:
        with explain_unreadable(name), open_input() as stream:
            content = stream.read(FILE_BYTES + 1)
        if len(content) > FILE_BYTES:
            raise DatasetError(f"{name} has more than {FILE_BYTES >> 20} MB; divide it into several files")
        text = decode_text(content, encoding, counts).removeprefix("\ufeff")
        return cast(BinaryIO, io.BytesIO(text.encode("utf-8", "replace")))

    return open_decoded
