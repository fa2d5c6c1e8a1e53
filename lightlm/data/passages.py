"""What a document is, and how it is cut: a row, a file, or what stands between borders; a long one into passages.

A passage ends at the first blank line after its least bytes, so that what is held out comes from several places and
no single piece outweighs the rest.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lightlm.data.files import Readable, Tally
from lightlm.errors import DatasetError

PASSAGE_BYTES = 4096
"""Least bytes of a passage of running text; it ends at the next blank line."""

SHORTEST_PASSAGE_BYTES = 256
PASSAGES_WANTED = 256
"""Passages of a small running text: they are shorter, so that what is held out comes from several places."""

LONGEST_DOCUMENT_BYTES = 1 << 22
"""Bytes from which any document is cut: a tokenizer takes some ten bytes of memory for each of a document's."""

DOCUMENTS_WANTED = 64
"""A document of more than two parts in so many of the whole text is cut: else one of few could be half of what is held
out, or all of it."""

LINE_FACTOR, LONGEST_FACTOR = 2, 16
"""Multiples of a passage's least bytes from which any line's end will do, and any character."""


LINE_ENDS = (b"\n", b"\r", "\u2028".encode(), "\u2029".encode())


class Piece(NamedTuple):
    """A document or a passage of one: its UTF-8, and which document and file of the split it is of."""

    text: bytes
    document: int
    file: int


class Sizes(NamedTuple):
    """Bytes: the longest document that is not cut (0: all are cut), and the least of a passage."""

    whole: int
    passage: int


def choose_sizes(num_bytes: int | None, *, is_running_text: bool) -> Sizes:
    """Return how the documents of a text of `num_bytes` (None: many) are cut.

    Powers of two: a text that grows keeps its passages, and so what is held out, until it has doubled.
    """
    if is_running_text:
        about = PASSAGE_BYTES if num_bytes is None else _round_down(num_bytes // PASSAGES_WANTED)
        return Sizes(0, min(PASSAGE_BYTES, max(SHORTEST_PASSAGE_BYTES, about)))
    about = LONGEST_DOCUMENT_BYTES if num_bytes is None else _round_down(num_bytes // DOCUMENTS_WANTED)
    about = min(LONGEST_DOCUMENT_BYTES // 2, max(SHORTEST_PASSAGE_BYTES, about))
    return Sizes(2 * about, min(about, LONGEST_DOCUMENT_BYTES // LONGEST_FACTOR))


def cut_documents(
    files: Sequence[Readable], num_bytes: int | None, tallies: list[Tally], *, is_named: bool = False
) -> Iterator[Piece]:
    """Yield the documents of files in order, long ones in passages; `tallies` gets one for each file as it is read.

    A file that cannot be read is left out with the reason in its tally, unless `is_named`.

    Raises:
        DatasetError: a file that a person named cannot be read, or any breaks off after its rows began.
    """
    document = 0
    for index, file in enumerate(files):
        tally = Tally()
        tallies.append(tally)
        try:
            sizes = choose_sizes(num_bytes, is_running_text=file.is_running_text)
            for text, is_last in _cut_file(file, tally, sizes):
                yield Piece(text, document, index)
                document += is_last
        except DatasetError as error:
            if is_named or tally.counts.rows:
                raise
            tally.error = str(error)


def _cut_file(file: Readable, tally: Tally, sizes: Sizes) -> Iterator[tuple[bytes, bool]]:
    """Yield each piece of a file, and whether it is its document's last."""
    lines: list[bytes] = []
    size = 0
    held: bytes | None = None
    longest = LONGEST_FACTOR * sizes.passage
    for row in file.rows(tally):
        if row is None:
            rest = b"".join(lines)
            lines, size = [], 0
            if held is not None and rest.strip():
                yield held, False
                yield rest, True
            elif held is not None or rest.strip():
                yield (held or b"") + rest, True
            held = None
        elif len(encoded := row.encode()) <= sizes.whole:
            lines.append(encoded)
        else:
            for line in _cut_lines(encoded, longest, is_line=sizes.whole == 0):
                lines.append(line)
                size += len(line)
                is_blank, is_line = not line.strip(), line.endswith(LINE_ENDS)
                least = sizes.passage if is_blank else LINE_FACTOR * sizes.passage if is_line else longest
                if size >= least:
                    if held is not None:
                        yield held, False
                    held, lines, size = b"".join(lines), [], 0


def _cut_lines(text: bytes, longest: int, *, is_line: bool) -> Iterator[bytes]:
    """Yield the lines of a text, each in parts of at most `longest` bytes that end with a character."""
    for line in (text,) if is_line else text.splitlines(keepends=True):
        start = 0
        while len(line) - start > longest:
            end = start + longest
            while line[end] & 0xC0 == 0x80:
                end -= 1
            yield line[start:end]
            start = end
        yield line[start:]


def _round_down(number: int) -> int:
    return 1 << max(1, number).bit_length() - 1
