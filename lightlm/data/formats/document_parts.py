"""The XML files inside a document that is a zip (.docx, .odt, .epub), with bounds on what they
expand to.

XML comes through expat in a stream, entities refused.
"""

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from xml.parsers import expat

from lightlm.errors import DatasetError

PART_BYTES = 1 << 27
"""Bytes that one file inside a document may expand to."""

DOCUMENT_ENTRIES = 20_000
"""Files inside one document; a book of many pictures has some thousands."""

READ_BYTES = 1 << 16


class DocumentParts:
    """The files inside a document, each of bounded size."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._names = {info.filename: info for info in archive.infolist()}

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def open_part(self, name: str) -> Any:
        """Return a file's bytes as a stream.

        Raises:
            DatasetError: no such file, a locked or an enormous one.
        """
        info = self._names.get(name)
        if info is None:
            raise DatasetError(f"has no part {name}; save it anew")
        if info.flag_bits & 1:
            raise DatasetError("is locked by a password; save it without one")
        if info.file_size > PART_BYTES:
            raise DatasetError(
                f"holds {name} of {info.file_size / 1e6:,.0f} MB, at most {PART_BYTES / 1e6:,.0f} "
                "MB"
            )
        return self._archive.open(info, mode="r")

    def read(self, name: str) -> bytes:
        """Return a file's bytes; errors as `open_part`."""
        with self.open_part(name) as file:
            return file.read(PART_BYTES)


@contextmanager
def open_document(content: bytes) -> Iterator[DocumentParts]:
    """Hand out the files inside a document.

    Raises:
        DatasetError: it is damaged, locked, or something else; in place of the errors of zip and
            XML readers.
    """
    if content.startswith(b"\xd0\xcf\x11\xe0"):
        raise DatasetError(
            "is an old Word file, or one with a password, under a new name; save it as .docx "
            "without one"
        )

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if len(archive.infolist()) > DOCUMENT_ENTRIES:
                raise DatasetError(
                    f"holds {len(archive.infolist()):,} files, at most {DOCUMENT_ENTRIES:,} are "
                    "read"
                )
            yield DocumentParts(archive)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        expat.ExpatError,
    ) as error:
        raise DatasetError(
            f"is damaged ({str(error) or 'it ends early'}); download or save it again"
        ) from None


def parse_xml(
    parts: DocumentParts,
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

    with parts.open_part(name) as file:
        while block := file.read(READ_BYTES):
            parser.Parse(block)
        parser.Parse(b"", True)
