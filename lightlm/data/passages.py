"""What a document is: a row with text, or of running text a passage of joined lines."""

from collections.abc import Iterator

from lightlm.data.source import Source

PASSAGE_BYTES = 4096
"""Of running text that make a passage, at least; it ends at the next blank line."""

SHORTEST_PASSAGE_BYTES = 256
PASSAGES_WANTED = 256
"""Of a small text, whose passages are shorter, so that what is held out comes from several places."""

LONGEST_DOCUMENT_BYTES = 1 << 22
"""A row with more is several documents: a tokenizer takes some ten bytes of memory for each of a document's."""

LONGEST_PASSAGE_FACTOR = 16
"""A passage without any blank line ends at this multiple of its size, at a line's end."""


def cut_documents(source: Source, rows: Iterator[str]) -> Iterator[bytes]:
    """Yield the UTF-8 of each document: a row with text; or of running text, passages of joined rows.

    A passage ends at the first blank line after its bytes; passages joined are the rows joined.
    """
    if not source.is_running_text:
        for row in rows:
            if row.strip():
                yield from _break_long(row.encode("utf-8"), LONGEST_DOCUMENT_BYTES)
        return
    wanted = PASSAGE_BYTES
    if source.num_bytes is not None:
        # A power of two: a text that grows keeps its passages, and so what is held out, until it has doubled.
        about = 1 << max(1, source.num_bytes // PASSAGES_WANTED).bit_length() - 1
        wanted = min(PASSAGE_BYTES, max(SHORTEST_PASSAGE_BYTES, about))
    longest = LONGEST_PASSAGE_FACTOR * wanted
    passage: list[bytes] = []
    size = 0
    for row in rows:
        for line in _break_long(row.encode("utf-8"), longest):
            passage.append(line)
            size += len(line)
            if size >= longest or (size >= wanted and not line.strip()):
                yield b"".join(passage)
                passage, size = [], 0
    rest = b"".join(passage)
    if rest.strip():
        yield rest


def _break_long(line: bytes, longest: int) -> Iterator[bytes]:
    """Yield a line in parts of at most `longest` bytes, never inside a character."""
    start = 0
    while len(line) - start > longest:
        end = start + longest
        while line[end] & 0xC0 == 0x80:
            end -= 1
        yield line[start:end]
        start = end
    yield line[start:]
