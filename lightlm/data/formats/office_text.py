"""Text of .docx and .odt.

Paragraphs are set apart by a blank line, list items and rows of tables by a line end. Deleted
revisions, comments, headers and footers are no text of a document; its notes are.
"""

import posixpath
import re
from collections.abc import Iterator

from lightlm.data.formats.document_parts import DocumentParts, open_document, parse_xml
from lightlm.errors import DatasetError

CHARACTERS = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
"""Elements of a Word document that stand for a character."""

OFFICE_RELATION = "/officeDocument"


def iterate_docx(content: bytes) -> Iterator[str | None]:
    """Yield the text of a Word document: its body, then its notes; None for its end."""
    with open_document(content) as parts:
        body = _find_docx_body(parts)
        folder = posixpath.dirname(body)
        for name in (
            body,
            posixpath.join(folder, "footnotes.xml"),
            posixpath.join(folder, "endnotes.xml"),
        ):
            if name == body or name in parts:
                collector = _DocxCollector()
                parse_xml(parts, name, collector.start, collector.end, collector.take)
                text = collector.read_text()
                yield text if name == body or not text else "\n\n" + text
        yield None


def iterate_odt(content: bytes) -> Iterator[str | None]:
    """Yield the text of an OpenDocument text; None for its end."""
    with open_document(content) as parts:
        manifest = "META-INF/manifest.xml"
        if manifest in parts and b"encryption-data" in parts.read(manifest):
            raise DatasetError("is locked by a password; save it without one")
        collector = _OdtCollector()
        parse_xml(parts, "content.xml", collector.start, collector.end, collector.take)
        yield collector.read_text()
        yield None


class _Paragraphs:
    """Paragraphs that are set apart by blank lines, or by line ends where they are items
    or rows.
    """

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
        self._pieces.append(text.strip())
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

    SKIPPED = frozenset(
        ("tracked-changes", "annotation", "forms", "sequence-decls", "desc", "title")
    )

    def __init__(self) -> None:
        self._paragraphs = _Paragraphs()
        self._lines: list[list[str]] = []  # a paragraph may stand within another: a note, a frame
        self._cell: list[str] = []
        self._row: list[str] = []
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
                self._cell.append(text.strip())
            else:
                self._paragraphs.add(text, is_close=self._list_depth > 0)
        elif tag == "list":
            self._list_depth -= 1
        elif tag == "table-cell":
            self._row.append(" ".join(filter(None, self._cell)))
            self._cell = []
        elif tag == "table-row":
            self._row_depth -= 1
            self._paragraphs.add("\t".join(self._row), is_close=True)
            self._row = []

    def take(self, data: str) -> None:
        if self._lines and not self._skip_depth:
            self._lines[-1].append(re.sub(r"\s+", " ", data))

    def read_text(self) -> str:
        return self._paragraphs.read()


def _find_docx_body(parts: DocumentParts) -> str:
    found = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag == "Relationship" and attributes.get("Type", "").endswith(OFFICE_RELATION):
            found.append(attributes.get("Target", "").lstrip("/"))

    if "_rels/.rels" in parts:
        parse_xml(parts, "_rels/.rels", start)
    return found[0] if found else "word/document.xml"
