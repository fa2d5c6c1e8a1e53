"""Text of e-mail: .eml, .mbox and pages that browsers save as .mhtml, by Python's own email
package.

A message becomes its subject, its sender's name and its body, decoded; attachments are left out.
"""

import contextlib
import email
import re
from collections.abc import Iterator
from email.header import decode_header, make_header
from email.message import Message
from email.utils import parseaddr
from typing import Any, BinaryIO

from lightlm.data.formats.markup_text import read_page
from lightlm.errors import DatasetError

MESSAGE_BYTES = 1 << 24
"""Bytes of a message that are read: its text stands before its attachments."""

LINE_BYTES = 1 << 16

SEPARATOR = re.compile(rb"From \S.*\d\d?:\d\d")
"""A line that begins a message in a mailbox: an address and a date."""


def iterate_messages(stream: BinaryIO) -> Iterator[str | None]:
    """Yield the text of each message of a mailbox, and None for its end.

    Raises:
        DatasetError: no mailbox.
    """
    lines: list[bytes] | None = None
    size = 0
    was_blank = True
    is_line_start = True

    while line := stream.readline(LINE_BYTES):
        if is_line_start and was_blank and SEPARATOR.match(line):
            if lines is not None:
                yield _read_if_whole(b"".join(lines))
                yield None
            lines = []
            size = 0
        elif lines is None:
            if line.strip():
                raise DatasetError("is no mailbox: it does not begin with From, a name and a date")
        elif size < MESSAGE_BYTES:
            # Mailboxes write > before a line of a body that begins as a separator does.
            is_quoted = (
                is_line_start and line.startswith(b">") and line.lstrip(b">").startswith(b"From ")
            )
            lines.append(line[1:] if is_quoted else line)
            size += len(line)
        was_blank = is_line_start and not line.strip()
        is_line_start = line.endswith(b"\n")

    if lines is not None:
        yield _read_if_whole(b"".join(lines))
        yield None


def iterate_message(content: bytes) -> Iterator[str | None]:
    """Yield the text of one message, and None for its end.

    Raises:
        DatasetError: it has neither headers nor a body.
    """
    text = read_message(content)
    if not text:
        raise DatasetError("holds no message with text")
    yield text
    yield None


def read_message(content: bytes) -> str:
    """Return subject, sender and body of a message; nothing where it has no body of text."""
    # Not the newer policy, whose parser of headers takes 4 ms a message.
    message = email.message_from_bytes(content)
    body = _find_body(message)
    text = _read_part(body) if body is not None else ""
    headers = [
        f"{name}: {value}" for name in ("Subject", "From") if (value := _read_header(message, name))
    ]
    return "\n\n".join(filter(None, ("\n".join(headers), text.strip())))


def _read_if_whole(content: bytes) -> str:
    """Return the text of a message; nothing where it is broken in a way that Python's own parser
    gives up on.
    """
    try:
        return read_message(content)
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError):
        return ""


def _find_body(message: "Message[Any, Any]") -> "Message[Any, Any] | None":
    """Return the part that is the text: the first plain one that is no attachment, else the first
    page.
    """
    found: dict[str, Message[Any, Any]] = {}
    for part in message.walk():
        kind = part.get_content_type()
        is_attached = part.get_content_disposition() == "attachment"
        if kind in ("text/plain", "text/html") and not is_attached and not part.is_multipart():
            found.setdefault(kind, part)
    return found.get("text/plain") or found.get("text/html")


def _read_part(part: "Message[Any, Any]") -> str:
    payload = part.get_payload(decode=True)
    content = payload if isinstance(payload, bytes) else b""
    text = _decode(content, part.get_content_charset()).replace("\r\n", "\n")
    return read_page(text) if part.get_content_type() == "text/html" else text


def _decode(content: bytes, charset: str | None) -> str:
    for name in (charset or "utf-8", "utf-8"):
        try:
            return content.decode(name)
        except (ValueError, LookupError):
            continue
    return content.decode("cp1252", "replace")


def _read_header(message: "Message[Any, Any]", name: str) -> str:
    """Return a decoded header; of a sender the name, or the address where there is none."""
    value = str(message.get(name, ""))
    if name == "From":
        person, address = parseaddr(value)
        value = person or address or value
    # of no known encoding: as it stands
    with contextlib.suppress(ValueError, LookupError, TypeError):
        value = str(make_header(decode_header(value)))
    return " ".join(value.split())
