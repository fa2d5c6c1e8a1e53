"""Text of web pages, subtitles and notebooks, by Python's own parsers.

A page gives what a reader sees of its body: no scripts, styles, menus, footers, hidden parts.
Subtitles give their lines without numbers and times, a notebook its notes and code without what the
code put out.
"""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

from lightlm.errors import DatasetError

PARAGRAPHS = frozenset(
    "p h1 h2 h3 h4 h5 h6 blockquote pre table ul ol dl figure hr section article main header "
    "address details".split()
)
"""Elements that a blank line stands before and after."""

LINES = frozenset(
    "br div li tr dt dd form fieldset figcaption summary caption body option legend".split()
)
"""Elements that begin on a new line, and end one."""

CELLS = frozenset(("td", "th"))

UNSEEN = frozenset(
    "script style template noscript title svg annotation rt rp iframe object canvas audio video "
    "button select textarea datalist".split()
)
"""Elements whose text is no part of the page's: code, controls, what stands in for pictures,
reading aids.
"""

AROUND = frozenset(("nav", "footer", "aside"))
"""Elements around the text of a web page; a book's hold its notes."""

OPEN_ENDED = frozenset("p li td th tr dt dd option thead tbody tfoot".split())
"""Elements that need no end tag, so that a hidden one cannot be skipped to its end."""

VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())

SPACE = re.compile(r"[ \t\n\r\f\xa0]+")

EMBEDDED = re.compile(r"\(?data:[\w/+.-]+;base64,[A-Za-z0-9+/=\s]{64,}\)?")
"""A picture inside a text, as base64."""

CUE_TIME = re.compile(
    r"\s*(?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3}\s*-->\s*(?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3}.*"
)
CUE_TAG = re.compile(
    r"</?(?:[ibucv]|font|lang|ruby|rt)(?:[ .][^>]*)?>|<\d[\d:.]*>|\{\\[^}]*\}", re.IGNORECASE
)


class PageParser(HTMLParser):
    """Collects the text of a page."""

    def __init__(self, *, skipped: frozenset[str], skips_hidden: bool) -> None:
        super().__init__(convert_charrefs=True)
        self._skipped_elements = skipped
        self._skips_hidden = skips_hidden
        self._pieces: list[str] = []
        self._breaks = 0  # line ends that are due before the next text
        self._has_space = False
        self._pre_depth = 0
        # the element that is skipped, and how deep in its like
        self._skipped: tuple[str, int] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin an element."""
        if self._skipped is not None:
            element, depth = self._skipped
            if tag == element:
                self._skipped = (element, depth + 1)
            return
        is_hidden = self._skips_hidden and tag not in OPEN_ENDED and _is_hidden(attrs)
        if tag not in VOID and (tag in self._skipped_elements or is_hidden):
            self._skipped = (tag, 1)
            return
        self._pre_depth += tag == "pre"
        self._break_at(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Meet an element without content, as XHTML writes it."""
        if self._skipped is None:
            self._break_at(tag)

    def handle_endtag(self, tag: str) -> None:
        """End an element."""
        if self._skipped is not None:
            element, depth = self._skipped
            if tag == element:
                self._skipped = (element, depth - 1) if depth > 1 else None
            return
        self._pre_depth = max(0, self._pre_depth - (tag == "pre"))
        self._break_at(tag)

    def handle_data(self, data: str) -> None:
        """Take text."""
        if self._skipped is not None:
            return
        if self._pre_depth:
            self._put(data)
            return

        text = SPACE.sub(" ", data)
        if text.startswith(" "):
            self._has_space = True
            text = text[1:]

        if not text:
            return

        ends_in_space = text.endswith(" ")
        self._put(text[:-1] if ends_in_space else text)
        self._has_space = ends_in_space

    def read_text(self) -> str:
        """Return the text, once the page is whole."""
        return "".join(self._pieces).strip("\n")

    @property
    def is_within_skipped(self) -> bool:
        """Whether an element that is skipped has not ended, but for those whose text no reader
        sees.
        """
        return self._skipped is not None and self._skipped[0] not in UNSEEN

    def _break_at(self, tag: str) -> None:
        if tag in PARAGRAPHS:
            self._breaks = max(self._breaks, 2)
        elif tag in LINES:
            self._breaks = max(self._breaks, 1)
        elif tag in CELLS:
            self._has_space = True

    def _put(self, text: str) -> None:
        if self._breaks:
            self._pieces.append("\n" * self._breaks if self._pieces else "")
        elif self._has_space and self._pieces:
            self._pieces.append(" ")
        self._breaks = 0
        self._has_space = False
        self._pieces.append(text)


def _is_hidden(attrs: list[tuple[str, str | None]]) -> bool:
    return any(
        name == "hidden"
        or (name == "style" and "display:none" in (value or "").replace(" ", "").lower())
        for name, value in attrs
    )


def read_page(page: str, *, is_web_page: bool = True) -> str:
    """Return the text of an HTML or XHTML page."""
    parser = PageParser(skipped=UNSEEN | AROUND if is_web_page else UNSEEN, skips_hidden=True)
    parser.feed(page)
    parser.close()
    if parser.is_within_skipped:
        # A menu without an end would swallow the rest of the page: better too much than too little.
        parser = PageParser(skipped=UNSEEN, skips_hidden=False)
        parser.feed(page)
        parser.close()
    return parser.read_text()


def read_subtitles(text: str) -> str:
    """Return the spoken lines of .srt or .vtt: no numbers, times, styles, and no line that only
    repeats the last.
    """
    lines: list[str] = []
    for block in re.split(
        r"\n[ \t]*\n+", text.replace("\r\n", "\n").replace("\r", "\n").strip("\ufeff\n")
    ):
        rows = block.split("\n")
        start = next((index for index, row in enumerate(rows) if CUE_TIME.fullmatch(row)), None)
        if start is None:
            continue  # a header, a note, a style
        for row in rows[start + 1 :]:
            line = CUE_TAG.sub("", row).strip()
            if line and (not lines or lines[-1] != line):
                lines.append(line)

    if not lines:
        raise DatasetError(
            "holds no subtitle with a time; wanted lines such as 00:00:01,000 --> 00:00:04,000"
        )

    return "\n".join(lines)


def read_notebook(content: bytes) -> str:
    """Return the text and code cells of a Jupyter notebook in their order, without outputs.

    Raises:
        DatasetError: no notebook.
    """
    try:
        notebook: Any = json.loads(content.decode("utf-8-sig", "replace"))
    except ValueError as error:
        raise DatasetError(f"is no whole notebook: it is not JSON ({error})") from None

    if not isinstance(notebook, dict):
        raise DatasetError("is no notebook: wanted an object with cells")

    cells = notebook.get("cells")
    if cells is None:  # version 3
        sheets = notebook.get("worksheets")
        cells = [
            cell
            for sheet in sheets or []
            if isinstance(sheet, dict)
            for cell in sheet.get("cells") or []
        ]

    if not isinstance(cells, list):
        raise DatasetError("is no notebook: its cells are no list")

    return "\n\n".join(filter(None, map(_read_cell, cells)))


def _read_cell(cell: Any) -> str:
    if not isinstance(cell, dict):
        return ""
    source = cell.get("source", cell.get("input", ""))
    text = (
        "".join(part for part in source if isinstance(part, str))
        if isinstance(source, list)
        else source
    )
    return EMBEDDED.sub("", text).strip("\n") if isinstance(text, str) else ""


def iterate_page(content: bytes) -> Iterator[str | None]:
    """Yield the text of a page in UTF-8, and None for its end."""
    yield read_page(content.decode("utf-8", "replace"))
    yield None


def iterate_subtitles(content: bytes) -> Iterator[str | None]:
    """Yield the text of subtitles in UTF-8, and None for its end."""
    yield read_subtitles(content.decode("utf-8", "replace"))
    yield None


def iterate_notebook(content: bytes) -> Iterator[str | None]:
    """Yield the text of a notebook, and None for its end."""
    yield read_notebook(content)
    yield None
