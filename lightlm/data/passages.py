"""What a document is, and how it is cut: a row, a file, or what stands between borders; a long one
into passages.

A passage ends at the first blank line after its least bytes, so that what is held out comes from
several places and no single piece outweighs the rest.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lightlm.data.files.rows import Readable, Tally
from lightlm.errors import DatasetError

PASSAGE_BYTES = 4096
"""Least bytes of a passage of running text; it ends at the next blank line."""

SHORTEST_PASSAGE_BYTES = 256
TINY_PASSAGE_BYTES = 64
TINY_PASSAGES = 32
"""Least bytes of any passage, and passages wanted of a text too small for that many of the bytes
above.
"""

PASSAGES_WANTED = 256
"""Passages of a small running text: they are shorter, so that what is held out comes from several
places.
"""

LONGEST_DOCUMENT_BYTES = 1 << 22
"""Bytes from which any document is cut: a tokenizer takes some ten bytes of memory for each of a
document's.
"""

DOCUMENTS_WANTED = 64
"""A document of more than two parts in so many of the whole text is cut: else one of few could be
half of what is held out, or all of it.
"""

LINE_FACTOR = 2
LONGEST_FACTOR = 16
"""Multiples of a passage's least bytes from which any line's end will do, and any blank or
character.
"""

LONGEST_SHARE = 16
"""No line stays whole that is more than one part in so many of the whole text, for it may be held
out.
"""

LINE_ENDS = tuple(end.encode() for end in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")
"""Ends of lines, as str.splitlines knows them."""


LARGE_BYTES = 1 << 40
"""A text whose bytes are unknown is cut as one of so many."""


class Piece(NamedTuple):
    """A document or a passage of one: its UTF-8, and which document and file of the
    split it is of.
    """

    text: bytes
    document: int
    file: int


class Sizes(NamedTuple):
    """Bytes: the longest document that is not cut (0: all are cut), the least of a passage, the
    longest line's.
    """

    whole: int
    passage: int
    longest: int


def choose_sizes(num_bytes: int | None, *, is_running_text: bool) -> Sizes:
    """Return how the documents of a text of `num_bytes` (None: many) are cut.

    Powers of two: a text that grows keeps its passages, and so what is held out, until it has
    doubled.
    """
    num_bytes = LARGE_BYTES if num_bytes is None else num_bytes
    shortest = min(
        SHORTEST_PASSAGE_BYTES, max(TINY_PASSAGE_BYTES, _round_down(num_bytes // TINY_PASSAGES))
    )

    if is_running_text:
        whole = 0
        passage = min(PASSAGE_BYTES, max(shortest, _round_down(num_bytes // PASSAGES_WANTED)))
    else:
        about = max(shortest, _round_down(num_bytes // DOCUMENTS_WANTED))
        about = min(LONGEST_DOCUMENT_BYTES // 2, about)
        whole = 2 * about
        passage = min(about, LONGEST_DOCUMENT_BYTES // LONGEST_FACTOR)

    longest = min(
        LONGEST_FACTOR * passage,
        max(LINE_FACTOR * passage, _round_down(num_bytes // LONGEST_SHARE)),
    )

    return Sizes(whole, passage, longest)


def cut_documents(
    files: Sequence[Readable],
    num_bytes: int | None,
    tallies: list[Tally],
    *,
    is_named: bool = False,
) -> Iterator[Piece]:
    """Yield the documents of files in order, long ones in passages; `tallies` gets one for each
    file as it is read.

    A file that cannot be read is left out with the reason in its tally, unless `is_named`.

    Raises:
        DatasetError: a file that a person named cannot be read, or any breaks off after its rows
            began.
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

    for row in file.rows(tally):
        if row is None:
            rest = b"".join(lines)
            lines = []
            size = 0
            has_text = rest and not rest.isspace()
            if held is not None and has_text:
                yield held, False
                yield rest, True
            elif held is not None or has_text:
                yield (held or b"") + rest, True
            held = None
        elif len(encoded := row.encode()) <= sizes.whole:
            lines.append(encoded)
        else:
            for line in _cut_lines(encoded, sizes.longest, is_line=sizes.whole == 0):
                lines.append(line)
                size += len(line)
                is_blank = not line.strip()
                is_line = line.endswith(LINE_ENDS)
                least = (
                    sizes.passage
                    if is_blank
                    else LINE_FACTOR * sizes.passage
                    if is_line
                    else sizes.longest // 2
                )
                if size >= least:
                    if held is not None:
                        yield held, False
                    held = b"".join(lines)
                    lines = []
                    size = 0


def _cut_lines(text: bytes, longest: int, *, is_line: bool) -> Iterator[bytes]:
    """Yield the lines of a text, each in parts of at most `longest` bytes that end with a blank, or
    a character.
    """
    for line in (text,) if is_line else text.splitlines(keepends=True):
        start = 0
        while len(line) - start > longest:
            end = line.rfind(b" ", start + longest // 2, start + longest) + 1 or start + longest
            while line[end] & 0xC0 == 0x80:
                end -= 1
            yield line[start:end]
            start = end
        yield line[start:]


def _round_down(number: int) -> int:
    return 1 << max(1, number).bit_length() - 1
