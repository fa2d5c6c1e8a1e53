"""What a file must be to be read as text: of no other format, with rows that memory holds.

Limits against files that are made to do harm, and messages for files that their readers refuse.
"""

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightlm.errors import DatasetError

ROWS_PER_READ = 64
"""Rows of a parquet file that are read at a time: a dictionary may name one long value in each.
Reading 4,096 at a time is no faster.
"""

EXPANDED_BYTES = 1 << 28
"""Bytes that the rows of one read may have, where a column is packed so tightly that it looks made
to expand.
"""

TIGHT_RATIO = 100
"""Bytes per byte on disk from which a column looks made to expand; text packs 2- to 10-fold."""

LONGEST_ROW_BYTES = 1 << 28
"""Bytes of a row of a table; memory holds a row several times."""

HEAD_BYTES = 4096
MAGIC = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
    b"%PDF-": "PDF",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "a Microsoft Office document (.doc, .xls or .ppt)",
    b"{\\rtf": "RTF",
    b"\x89PNG\r\n\x1a\n": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"RIFF": "sound or video",
    b"ID3": "an MP3",
    b"OggS": "sound or video",
    b"SQLite format 3\0": "an SQLite database",
    b"PAR1": "parquet",
    b"ARROW1": "Arrow",
    b"\x7fELF": "a program",
    b"\x93NUMPY": "a numpy array",
    b"\xca\xfe\xba\xbe": "a program",
}
"""What the first bytes of a file say that is no text, whatever its name says."""


def name_other_format(head: bytes) -> str | None:
    """Return what a file is by its first bytes where that is no text; None where they
    may be text.
    """
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)


@contextmanager
def explain_unreadable(path: Path | str) -> Iterator[None]:
    """Say of a file that the disk, or its format's reader, gives up on what to do.

    Raises:
        DatasetError: in place of the reader's own error.
    """
    try:
        yield
    except _list_errors() as error:
        why = (
            error.strerror
            if isinstance(error, OSError) and error.strerror
            else str(error).partition("\n")[0]
        )
        raise DatasetError(
            f"{path} cannot be read ({why}); mend it, or download or write it again"
        ) from None


def _list_errors() -> tuple[type[Exception], ...]:
    """Return what readers raise; pyarrow's only where it reads, for importing it takes a while."""
    arrow = sys.modules.get("pyarrow")
    return (OSError, csv.Error, RecursionError, *((arrow.ArrowException,) if arrow else ()))


def format_long(num_bytes: int) -> str:
    """Return what is wrong with a row of so many bytes, and what to do."""
    return (
        f"{num_bytes / 1e6:,.0f} MB; the longest may have {LONGEST_ROW_BYTES / 1e6:,.0f} MB: "
        "divide it into several"
    )
