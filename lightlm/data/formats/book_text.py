"""Text of .epub: the chapters of a book in reading order."""

import posixpath
import re
from collections.abc import Iterator
from urllib.parse import unquote

from lightlm.data.formats.document_parts import DocumentParts, open_document, parse_xml
from lightlm.data.formats.markup_text import read_page
from lightlm.errors import DatasetError

WEB_TYPES = ("application/xhtml+xml", "text/html", "text/x-oeb1-document")


def iterate_epub(content: bytes) -> Iterator[str | None]:
    """Yield the chapters of a book in reading order; None for its end."""
    with open_document(content) as parts:
        is_first = True
        for name in _list_chapters(parts):
            text = read_page(_decode_xhtml(parts.read(name)), is_web_page=False)
            if text.strip():
                yield text if is_first else "\n\n" + text
                is_first = False
        yield None


def _list_chapters(parts: DocumentParts) -> list[str]:
    """Return the names of a book's chapters in reading order.

    Raises:
        DatasetError: no book, or a locked one.
    """
    packages: list[str] = []
    locked: set[str] = set()
    parse_xml(
        parts,
        "META-INF/container.xml",
        lambda tag, attributes: (
            packages.append(attributes.get("full-path", "")) if tag == "rootfile" else None
        ),
    )

    if "META-INF/encryption.xml" in parts:
        parse_xml(
            parts,
            "META-INF/encryption.xml",
            lambda tag, attributes: (
                locked.add(unquote(attributes.get("URI", ""))) if tag == "CipherReference" else None
            ),
        )

    if not packages:
        raise DatasetError("is no book: its container names no package; download it again")

    items: dict[str, tuple[str, str]] = {}
    order: list[str] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag == "item":
            items[attributes.get("id", "")] = (
                attributes.get("href", ""),
                attributes.get("media-type", ""),
            )
        elif tag == "itemref":
            order.append(attributes.get("idref", ""))

    parse_xml(parts, packages[0], start)
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
