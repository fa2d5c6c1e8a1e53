"""Bytes to text: which encoding an input has, and how its bytes become characters and lines.

A byte order mark decides first, then strict UTF-8, then charset-normalizer. What stays unsure is
refused by name: text in the wrong encoding is easier to predict, so a score would reward the
mistake.
"""

import codecs
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

from lightlm.data.characters.code_pages import find_escaped, find_latin, find_wide
from lightlm.data.characters.file_checks import explain_unreadable, name_other_format
from lightlm.errors import DatasetError

Opener = Callable[[], BinaryIO]
"""Opens the (decompressed) bytes of one input anew, from their start; the caller closes
the stream.
"""

SCANNED_BYTES = 1 << 25
"""Bytes of an input that are read to find its encoding; 32 MB take 30 ms. What comes later is
decoded and counted.
"""

GUESSED_BYTES = 1 << 16
"""Bytes of lines beyond ASCII that charset-normalizer sees; more of them change no guess."""

BLOCK_BYTES = 1 << 20

STRAY_BYTES = 1
STRAY_RATIO = 20
"""A text is UTF-8 with damage if it has one bad byte, or this many whole UTF-8 characters for each
bad byte.
"""

MIXED_SHARE = 0.1
"""Fraction of the lines beyond ASCII that are valid UTF-8, while others are not, from which a text
is mixed.
"""

CLOSE_CHAOS = 0.02
CLOSE_COHERENCE = 0.08
"""Distances in charset-normalizer's measures below which two encodings with different text are as
likely.
"""

BETTER_CHAOS = 0.1
BETTER_COHERENCE = 0.2
"""Less chaos than the first decides, unless an encoding within this distance has a language's
letters more clearly.
"""

WESTERN = frozenset(
    "àâäáãåæçéèêëíìîïñóòôöõøúùûüÿßÀÂÄÁÃÅÆÇÉÈÊËÍÌÎÏÑÓÒÔÖÕØÚÙÛÜ«»¿¡“”‘’„‚–—…€°§£©®·´\u00a0"
)
"""Signs of western European text beyond ASCII: where cp1252 gives no others, it decides between
equally likely ones.
"""

CODECS = (
    "cp1252", "cp1251", "cp1250", "koi8_r", "koi8_u", "cp866", "iso8859_5", "mac_cyrillic",
    "iso8859_2",
    "iso8859_15", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp874", "tis_620",
    "shift_jis", "euc_jp",
    "gb18030", "big5", "euc_kr", "cp437", "cp850", "mac_roman",
)  # fmt: skip
"""Encodings of text files in use, the likelier of two that give the same text first. Source: WHATWG
Encoding Standard, and the code pages of DOS and of classic Mac OS.
"""

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks; those of UTF-32 begin with those of UTF-16, so they stand before them."""


@dataclass(frozen=True)
class Encoding:
    """A Python codec's name ("utf-8", "cp1251", "utf-16-le"), and what it was found by."""

    name: str
    found_by: Literal["mark", "strict", "guess", "named"] = "strict"


@dataclass
class RowCounts:
    """What was met while reading: rows, rows without text, rows with undecodable bytes, and those
    bytes.
    """

    rows: int = 0
    empty: int = 0
    bad_rows: int = 0
    replaced_bytes: int = 0


UTF_8 = Encoding("utf-8")


def find_encoding(open_input: Opener, name: str, named: str | None = None) -> Encoding:
    """Return the encoding of an input; `name` is the input's for messages, `named` the encoding
    that a person gave.

    Raises:
        DatasetError: no text at all, or no encoding that is sure.
    """
    with explain_unreadable(name), open_input() as stream:
        head = stream.read(SCANNED_BYTES)
    found = find_mark(head)
    if found is None and named is not None:
        found = Encoding(check_encoding_name(named), "named")
    if found is None and b"\0" in head and (wide := find_wide(head)):
        found = Encoding(wide, "guess")

    if found is not None:
        return found

    refuse_binary(head, name)
    if escaped := find_escaped(head):
        return Encoding(escaped, "guess")

    bad, whole = _count_sequences(head)
    if bad == 0:
        return UTF_8
    if bad <= STRAY_BYTES or whole >= STRAY_RATIO * bad:
        return UTF_8

    return _guess(head, name)


def check_encoding_name(named: str) -> str:
    """Return the codec's own name.

    Raises:
        DatasetError: Python knows no such encoding of text.
    """
    try:
        found = codecs.lookup(named.strip())
        "".encode(found.name)
    except (LookupError, ValueError):
        raise DatasetError(
            f"dataset.encoding is {named!r}, which is no encoding that Python knows; give one such "
            "as utf-8, cp1252, cp1251, utf-16, shift_jis, gb18030"
        ) from None
    return found.name


def find_mark(head: bytes) -> Encoding | None:
    """Return the encoding that a byte order mark names."""
    return next((Encoding(codec, "mark") for mark, codec in MARKS if head.startswith(mark)), None)


def refuse_binary(head: bytes, name: str) -> None:
    """Refuse bytes that are of a known binary format, or hold NULs.

    Raises:
        DatasetError: with how to make text of them.
    """
    other = name_other_format(head)
    if other is not None:
        raise DatasetError(
            f"{name} is {other}, not text; convert it to text and give what comes out"
        )
    if b"\0" in head:
        raise DatasetError(
            f"{name} holds NUL bytes, so it is binary or damaged, not text; leave it out or "
            "convert it"
        )


def decode_text(data: bytes, encoding: Encoding, counts: RowCounts) -> str:
    """Return the text of bytes; what cannot be decoded becomes U+FFFD and is counted."""
    try:
        return data.decode(encoding.name)
    except UnicodeDecodeError:
        with _counting(counts):
            return data.decode(encoding.name, _HANDLER)


def mend_surrogates(text: str, counts: RowCounts) -> str:
    """Return text that UTF-8 can hold: each lone surrogate becomes U+FFFD and is counted."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        surrogates = sum("\ud800" <= character <= "\udfff" for character in text)
        counts.replaced_bytes += surrogates
        counts.bad_rows += 1
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def iterate_lines(
    stream: BinaryIO,
    encoding: Encoding,
    counts: RowCounts,
    *,
    longest: int,
    only_newline: bool = False,
) -> Iterator[str]:
    r"""Yield the lines of a stream with their ends; a line of more than `longest` characters in
    parts.

    A line ends at \n, \r\n, \r, or at U+2028 and U+2029 and the other ends that str.splitlines
    knows; with `only_newline` at \n alone, as JSON lines do. All parts joined are the decoded
    stream, its byte order mark left out.
    """
    decoder = codecs.getincrementaldecoder(encoding.name)(_HANDLER)
    rest = ""
    is_rest_bad = False
    is_first = True

    while True:
        block = stream.read(BLOCK_BYTES)
        before = counts.replaced_bytes
        with _counting(counts):
            text = decoder.decode(block, final=not block)
        if is_first and text:
            text = text.removeprefix("\ufeff")
            is_first = False
        had_bad = is_rest_bad or counts.replaced_bytes > before
        text = rest + text
        # A \r at the end may be the first half of \r\n.
        held = "\r" if block and text.endswith("\r") and not only_newline else ""
        text = text[: len(text) - len(held)]
        lines = _split_newlines(text) if only_newline else text.splitlines(keepends=True)
        rest = ""
        if block and lines and not _is_ended(lines[-1], only_newline=only_newline):
            rest = lines.pop()
        is_rest_bad = had_bad and "\ufffd" in rest
        for line in lines:
            counts.rows += 1
            if had_bad and "\ufffd" in line:
                counts.bad_rows += 1
            if len(line) <= longest:
                yield line
            else:
                yield from (line[at : at + longest] for at in range(0, len(line), longest))
        while len(rest) > longest:
            yield rest[:longest]
            rest = rest[longest:]
        rest += held
        if not block:
            return


def _split_newlines(text: str) -> list[str]:
    lines = [f"{line}\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    if not lines[-1]:
        lines.pop()
    return lines


def _is_ended(line: str, *, only_newline: bool) -> bool:
    return (
        line.endswith("\n")
        if only_newline
        else bool(line) and len(line.splitlines()[0]) < len(line)
    )


def _count_sequences(head: bytes) -> tuple[int, int]:
    """Return how many bytes are no UTF-8, and how many characters of several bytes are whole.

    A character cut off at the end of the scan is neither.
    """
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if (
            error.end >= len(head)
            and len(head) == SCANNED_BYTES
            and error.reason == "unexpected end of data"
        ):
            return 0, 0
    else:
        return 0, 0

    counts = RowCounts()
    text = decode_text(head, UTF_8, counts)
    return counts.replaced_bytes, sum(character > "\x7f" for character in text) - text.count(
        "\ufffd"
    )


def _guess(head: bytes, name: str) -> Encoding:
    from charset_normalizer import from_bytes

    advice = "name it: --set dataset.encoding=cp1252 (or another)"
    lines = [line for line in head.splitlines(keepends=True) if not line.isascii()]
    valid = sum(_is_utf8(line) for line in lines)

    if len(lines) > 1 and valid > MIXED_SHARE * len(lines) and valid < len(lines):
        raise DatasetError(
            f"{name} is partly UTF-8 ({valid:,} lines) and partly not ({len(lines) - valid:,} "
            f"lines); {advice}"
        )

    sample = b"".join(lines)[:GUESSED_BYTES]
    if latin := find_latin(sample):
        return Encoding(_shown_name(latin), "guess")

    matches = list(from_bytes(sample, cp_isolation=list(CODECS)))
    if not matches:
        raise DatasetError(f"{name} is not UTF-8, and its encoding cannot be detected; {advice}")

    matches = [match for match in matches if not _shouts(str(match))] or matches
    best = matches[0]
    rivals = [
        match for match in matches[1:] if str(match) != str(best) and _is_as_likely(match, best)
    ]

    if rivals:
        western = [
            match
            for match in (best, *rivals)
            if WESTERN.issuperset(c for c in str(match) if not c.isascii())
        ]
        if any("cp1252" in (match.encoding, *match.could_be_from_charset) for match in western):
            return Encoding("cp1252", "guess")
        if len(western) != 1:
            likely = ", ".join(_shown_name(match.encoding) for match in (best, *rivals[:3]))
            option = f"--set dataset.encoding={_shown_name(best.encoding)}"
            raise DatasetError(
                f"{name} is not UTF-8 and may be {likely}; name it: {option} (or another)"
            )
        best = western[0]

    same = [codec for codec in CODECS if codec in (best.encoding, *best.could_be_from_charset)]
    return Encoding(_shown_name(same[0] if same else best.encoding), "guess")


def _shouts(text: str) -> bool:
    """Return whether capitals outnumber small letters beyond ASCII, as in Russian read by the wrong
    code page.
    """
    letters = [character for character in text if not character.isascii() and character.isalpha()]
    return sum(map(str.isupper, letters)) > sum(map(str.islower, letters))


def _is_as_likely(match: Any, best: Any) -> bool:
    chaos = match.chaos - best.chaos
    coherence = match.coherence - best.coherence
    return (chaos < CLOSE_CHAOS and coherence > -CLOSE_COHERENCE) or (
        chaos < BETTER_CHAOS and coherence > BETTER_COHERENCE
    )


def _shown_name(codec: str) -> str:
    return codecs.lookup(codec).name


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


@contextmanager
def _counting(counts: RowCounts) -> Iterator[None]:
    """Count the bytes that this thread's decoders replace inside."""
    _replaced.bytes = 0
    try:
        yield
    finally:
        counts.replaced_bytes += _replaced.bytes


_replaced = threading.local()
_HANDLER = "lightlm-replace"


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    _replaced.bytes = getattr(_replaced, "bytes", 0) + error.end - error.start
    return "\ufffd", error.end


codecs.register_error(_HANDLER, _replace)
