"""Untrusted text made harmless for a terminal: control characters become visible."""

import re

_DANGEROUS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and newline, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of writing
    "\u2028\u2029"  # line ends that are no newline
    "\ud800-\udfff]"  # lone surrogates, which no terminal's encoding holds
)


def escape_for_terminal(text: str) -> str:
    r"""Return `text` with each control character but tab and newline as `\x1b` or `\u202e`.

    What a model writes, and what stands in a data set, may move the cursor, set the window's title,
    fill the clipboard or write from right to left, if a terminal is given it as it is.
    """
    return _DANGEROUS.sub(_show, text)


def _show(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
