"""Documents of web pages, notebooks, subtitles, books, office files, PDFs and mail, as plain text.

Python's own parsers read .html .ipynb .srt .docx .odt .epub .eml and .mbox; pypdf, pure Python as
well, reads .pdf. All run in one child process under limits of memory, time and output, for files
are anybody's. .tex .rst .org .adoc and source code are plain text: a model of them learns their
marks, as it does Markdown's.
"""

import atexit
import codecs
import io
import re
from collections.abc import Iterator
from typing import BinaryIO, cast

from lightlm.data.characters.decoding import (
    Encoding,
    Opener,
    RowCounts,
    decode_text,
    find_encoding,
    find_mark,
)
from lightlm.data.characters.file_checks import explain_unreadable
from lightlm.data.formats.child import read_whole
from lightlm.data.formats.document_reader import DocumentReader

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

TEXT_KINDS = ("page", "subtitles")
"""Kinds that are bytes of text in some encoding; the others say their own."""

WEB_CODECS = {
    "iso-8859-1": "cp1252",
    "latin1": "cp1252",
    "us-ascii": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
}
"""Encodings that browsers take for others. Source: WHATWG Encoding Standard."""

CHARSET = re.compile(
    rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]{2,40})""", re.IGNORECASE
)
CHARSET_BYTES = 4096


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
    """Yield the documents of an input; `suffix` is one of `DOCUMENT_SUFFIXES`, `name` the input's
    for messages.

    Pages and subtitles are decoded by `encoding`, or the one that `find_document_encoding` finds,
    and what had to be replaced is added to `counts`.

    Raises:
        DatasetError: it cannot be read or exceeds a limit.
    """
    kind = DOCUMENT_SUFFIXES[suffix]
    if kind in TEXT_KINDS:
        found = encoding or find_document_encoding(open_input, suffix, name)
        open_input = _decode_first(open_input, found, counts or RowCounts(), name)
    yield from _SHARED.extract(open_input, kind, name)


def find_document_encoding(
    open_input: Opener, suffix: str, name: str, named: str | None = None
) -> Encoding:
    """Return the encoding of a page or of subtitles; UTF-8 for formats that say their own.

    A page that is no UTF-8 has the encoding that it declares, where its bytes allow that.

    Raises:
        DatasetError: it is unsure.
    """
    kind = DOCUMENT_SUFFIXES[suffix]
    if kind not in TEXT_KINDS:
        return Encoding("utf-8", "mark")

    if kind == "page" and named is None:
        content = _read_whole(open_input, name)
        declared = CHARSET.search(content[:CHARSET_BYTES])
        if (
            declared is not None
            and find_mark(content) is None
            and not _is_decodable(content, "utf-8")
        ):
            label = declared.group(1).decode("ascii").lower()
            codec = WEB_CODECS.get(label, label)
            if _is_decodable(content, codec):
                return Encoding(codecs.lookup(codec).name, "mark")

    return find_encoding(open_input, name, named)


def _is_decodable(content: bytes, codec: str) -> bool:
    try:
        content.decode(codec)
    except (UnicodeError, LookupError):
        return False
    return True


def close_reader() -> None:
    """End the child that parses documents; the next document starts another."""
    _SHARED.close()


def _decode_first(open_input: Opener, encoding: Encoding, counts: RowCounts, name: str) -> Opener:
    """Return what opens the same text in UTF-8, decoded once and whole."""

    def open_decoded() -> BinaryIO:
        content = _read_whole(open_input, name)
        text = decode_text(content, encoding, counts).removeprefix("\ufeff")
        return cast(BinaryIO, io.BytesIO(text.encode("utf-8", "replace")))

    return open_decoded


def _read_whole(open_input: Opener, name: str) -> bytes:
    with explain_unreadable(name), open_input() as stream:
        return read_whole(stream, name)
