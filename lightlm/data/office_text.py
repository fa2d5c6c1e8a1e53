"""Text of .docx, .odt, .epub and .pdf. The first three are zips of XML, which Python reads; PDF takes pypdf.

XML comes through expat in a stream, entities refused. Paragraphs are set apart by a blank line, list items and rows of
tables by a line end. Deleted revisions, comments, headers and footers are no text of a document; its notes are.
"""

import io
import posixpath
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote
from xml.parsers import expat

from lightlm.data.markup_text import read_page
from lightlm.errors import DatasetError

PART_BYTES = 1 << 27
"""Bytes that one file inside a document may expand to. War and Peace as .docx holds 12 MB of XML."""

DOCUMENT_ENTRIES = 20_000
"""Files inside one document; a book of many pictures has some thousands."""

READ_BYTES = 1 << 16

CHARACTERS = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
"""Elements of a Word document that stand for a character."""

LIGATURES = str.maketrans(
    {"\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl", "\ufb05": "st", "\ufb06": "st"}
)

OFFICE_RELATION = "/officeDocument"
WEB_TYPES = ("application/xhtml+xml", "text/html", "text/x-oeb1-document")


def iterate_docx(content: bytes) -> Iterator[str | None]:
    """Yield the text of a Word document: its body, then its notes; None for its end."""
    with _open_document(content) as parts:
        body = _find_docx_body(parts)
        folder = posixpath.dirname(body)
        for name in (body, posixpath.join(folder, "footnotes.xml"), posixpath.join(folder, "endnotes.xml")):
            if name == body or name in parts:
                collector = _DocxCollector()
                _parse_xml(parts, name, collector.start, collector.end, collector.take)
                text = collector.read_text()
                yield text if name == body or not text else "\n\n" + text
        yield None


def iterate_odt(content: bytes) -> Iterator[str | None]:
    """Yield the text of an OpenDocument text; None for its end."""
    with _open_document(content) as parts:
        if b"encryption-data" in parts.read_small("META-INF/manifest.xml"):
            raise DatasetError("is locked by a password; save it without one")
        collector = _OdtCollector()
        _parse_xml(parts, "content.xml", collector.start, collector.end, collector.take)
        yield collector.read_text()
        yield None


def iterate_epub(content: bytes) -> Iterator[str | None]:
    """Yield the chapters of a book in reading order; None for its end."""
    with _open_document(content) as parts:
        is_first = True
        for name in _list_chapters(parts):
            text = read_page(_decode_xhtml(parts.read(name)), is_web_page=False)
            if text.strip():
                yield text if is_first else "\n\n" + text
                is_first = False
        yield None


def iterate_pdf(content: bytes) -> Iterator[str | None]:
    """Yield the text of a PDF page by page; None for its end."""
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    if b"%PDF-" not in content[:1024]:
        raise DatasetError("is no PDF: it does not begin with %PDF-; download it again")
    try:
        reader = PdfReader(io.BytesIO(content), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise DatasetError("is locked by a password; save it without one: qpdf --decrypt OLD NEW")
        has_text = False
        for page in reader.pages:
            text = join_lines(page.extract_text())
            if text:
                yield "\n\n" + text if has_text else text
                has_text = True
        if not has_text and len(reader.pages):
            raise DatasetError("has pages but no text: it is a scan; recognize its text first: ocrmypdf OLD NEW")
    except PyPdfError as error:
        raise DatasetError(f"cannot be read ({str(error).partition(chr(10))[0]}); download or write it again") from None
    yield None


def join_lines(page: str) -> str:
    """Return a page's text with divided words joined, ligatures as letters, and no blanks at line ends."""
    text = re.sub(r"[ \t]+\n", "\n", page.translate(LIGATURES)).strip()
    return re.sub(r"(?<=[a-zß-öø-ÿа-яё])[-\u2010\u00ad]\n(?=[a-zß-öø-ÿа-яё])", "", text)


class _Parts:
    """The files inside a document, each of bounded size."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._names = {info.filename: info for info in archive.infolist()}

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def open(self, name: str) -> Any:
        info = self._names.get(name)
        if info is None:
            raise DatasetError(f"has no part {name}; save it anew")
        if info.flag_bits & 1:
            raise DatasetError("is locked by a password; save it without one")
        if info.file_size > PART_BYTES:
            raise DatasetError(f"holds {name} of {info.file_size / 1e6:,.0f} MB, at most {PART_BYTES / 1e6:,.0f} MB")
        return self._archive.open(info)

    def read(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read(PART_BYTES)

    def read_small(self, name: str) -> bytes:
        return self.read(name) if name in self else b""


@contextmanager
def _open_document(content: bytes) -> Iterator[_Parts]:
    if content.startswith(b"\xd0\xcf\x11\xe0"):
        raise DatasetError("is an old Word file, or one with a password, under a new name; save it as .docx without one")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if len(archive.infolist()) > DOCUMENT_ENTRIES:
                raise DatasetError(f"holds {len(archive.infolist()):,} files, at most {DOCUMENT_ENTRIES:,} are read")
            yield _Parts(archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, expat.ExpatError) as error:
        raise DatasetError(f"is damaged ({str(error) or 'it ends early'}); download or save it again") from None


def _parse_xml(
    parts: _Parts,
    name: str,
    start: Callable[[str, dict[str, str]], None],
    end: Callable[[str], None] = lambda _: None,
    take: Callable[[str], None] = lambda _: None,
) -> None:
    """Send the elements and text of a part to functions, names without their namespaces."""

    def refuse(*_: Any) -> None:
        raise DatasetError(f"declares entities in {name}, which no program for documents writes")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = lambda tag, attributes: start(
        tag.rpartition(" ")[2], {key.rpartition(" ")[2]: value for key, value in attributes.items()}
    )
    parser.EndElementHandler = lambda tag: end(tag.rpartition(" ")[2])
    parser.CharacterDataHandler = take
    parser.buffer_text = True
    with parts.open(name) as file:
        while block := file.read(READ_BYTES):
            parser.Parse(block)
        parser.Parse(b"", True)


class _Paragraphs:
    """Paragraphs that are set apart by blank lines, or by line ends where they are items or rows."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._was_close = False

    def add(self, text: str, *, is_close: bool) -> None:
        """Add a paragraph; one that `is_close` follows another such one without a blank line."""
        if not text.strip():
            self._was_close = False
            return
        if self._pieces:
            self._pieces.append("\n" if is_close and self._was_close else "\n\n")
        self._pieces.append(text.strip(" \n"))
        self._was_close = is_close

    def read(self) -> str:
        return "".join(self._pieces)


class _DocxCollector:
    """Collects the text of WordprocessingML."""

    SKIPPED = frozenset(("Fallback", "moveFrom", "del", "rPrChange", "pPrChange"))

    def __init__(self) -> None:
        self._paragraphs = _Paragraphs()
        self._lines: list[list[str]] = []  # a paragraph may stand within another: a text box
        self._cell: list[str] = []
        self._row: list[str] = []
        self._is_text = False
        self._is_item = False
        self._row_depth = 0
        self._skip_depth = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if self._skip_depth or tag in self.SKIPPED:
            self._skip_depth += 1
        elif tag == "p":
            self._lines.append([])
        elif tag == "t":
            self._is_text = True
        elif tag == "numPr":
            self._is_item = True
        elif tag == "tr":
            self._row_depth += 1
        elif self._lines and tag in CHARACTERS:
            # A tab with a position is a tab stop in the paragraph's properties, no character.
            self._lines[-1].append("" if "pos" in attributes else CHARACTERS[tag])

    def end(self, tag: str) -> None:
        if self._skip_depth:
            self._skip_depth -= 1
        elif tag == "t":
            self._is_text = False
        elif tag == "p" and self._lines:
            text = "".join(self._lines.pop())
            if self._row_depth:
                self._cell.append(text.strip())
            else:
                self._paragraphs.add(text, is_close=self._is_item)
            self._is_item = False
        elif tag == "tc":
            self._row.append(" ".join(filter(None, self._cell)))
            self._cell = []
        elif tag == "tr":
            self._row_depth -= 1
            self._paragraphs.add("\t".join(self._row), is_close=True)
            self._row = []

    def take(self, data: str) -> None:
        if self._is_text and not self._skip_depth and self._lines:
            self._lines[-1].append(data)

    def read_text(self) -> str:
        return self._paragraphs.read()


class _OdtCollector:
    """Collects the text of OpenDocument."""

    SKIPPED = frozenset(("tracked-changes", "annotation", "forms", "sequence-decls", "desc", "title"))

    def __init__(self) -> None:
        self._paragraphs = _Paragraphs()
        self._lines: list[list[str]] = []  # a paragraph may stand within another: a note, a frame
        self._cells: list[str] = []
        self._list_depth = 0
        self._row_depth = 0
        self._skip_depth = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if self._skip_depth or tag in self.SKIPPED:
            self._skip_depth += 1
        elif tag in ("p", "h"):
            self._lines.append([])
        elif tag == "list":
            self._list_depth += 1
        elif tag == "table-row":
            self._row_depth += 1
        elif self._lines and tag in ("s", "tab", "line-break"):
            count = attributes.get("c", "1")
            repeats = min(int(count), 100) if count.isdecimal() else 1
            self._lines[-1].append({"s": " " * repeats, "tab": "\t", "line-break": "\n"}[tag])

    def end(self, tag: str) -> None:
        if self._skip_depth:
            self._skip_depth -= 1
        elif tag in ("p", "h") and self._lines:
            text = "".join(self._lines.pop())
            if self._row_depth:
                self._cells.append(text.strip())
            else:
                self._paragraphs.add(text, is_close=self._list_depth > 0)
        elif tag == "list":
            self._list_depth -= 1
        elif tag == "table-row":
            self._row_depth -= 1
            self._paragraphs.add("\t".join(self._cells), is_close=True)
            self._cells = []

    def take(self, data: str) -> None:
        if self._lines and not self._skip_depth:
            self._lines[-1].append(re.sub(r"\s+", " ", data))

    def read_text(self) -> str:
        return self._paragraphs.read()


def _find_docx_body(parts: _Parts) -> str:
    found = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag == "Relationship" and attributes.get("Type", "").endswith(OFFICE_RELATION):
            found.append(attributes.get("Target", "").lstrip("/"))

    if "_rels/.rels" in parts:
        _parse_xml(parts, "_rels/.rels", start)
    return found[0] if found else "word/document.xml"


def _list_chapters(parts: _Parts) -> list[str]:
    """Return the names of a book's chapters in reading order.

    Raises:
        DatasetError: no book, or a locked one.
    """
    packages: list[str] = []
    locked: set[str] = set()
    _parse_xml(
        parts,
        "META-INF/container.xml",
        lambda tag, attributes: packages.append(attributes.get("full-path", "")) if tag == "rootfile" else None,
    )
    if "META-INF/encryption.xml" in parts:
        _parse_xml(
            parts,
            "META-INF/encryption.xml",
            lambda tag, attributes: locked.add(unquote(attributes.get("URI", ""))) if tag == "CipherReference" else None,
        )
    if not packages:
        raise DatasetError("is no book: its container names no package; download it again")

    items: dict[str, tuple[str, str]] = {}
    order: list[str] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag == "item":
            items[attributes.get("id", "")] = (attributes.get("href", ""), attributes.get("media-type", ""))
        elif tag == "itemref":
            order.append(attributes.get("idref", ""))

    _parse_xml(parts, packages[0], start)
    folder = posixpath.dirname(packages[0])
    chapters = []
    for href, kind in (items[key] for key in order if key in items):
        name = posixpath.normpath(posixpath.join(folder, unquote(href)))
        if kind in WEB_TYPES and name in parts and name not in chapters:
            chapters.append(name)
    if locked.intersection(chapters):
        raise DatasetError("is locked by its shop (DRM), so its text cannot be read")
    if not chapters:
        raise DatasetError("is a book without chapters of text; download it again")
    return chapters


def _decode_xhtml(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    named = re.search(rb"""<\?xml[^>]*encoding=["']([\w.-]+)""", content[:200])
    for encoding in (named.group(1).decode("ascii") if named else "utf-8", "utf-8"):
        try:
            return content.decode(encoding).removeprefix("\ufeff")
        except (UnicodeError, LookupError):
            continue
    return content.decode("cp1252", "replace")
