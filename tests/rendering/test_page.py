"""Tests of pages: the same words in Markdown and in HTML, and nothing that a text can
draw or run.
"""

import base64
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from lightlm.rendering.page import Heading, Page, Picture, Quote, Table

SVG = '<svg xmlns="http://www.w3.org/2000/svg"><text>0</text></svg>'
PAGE = Page(
    "A title",
    [
        "A paragraph.",
        Table(("name", "value"), [("loss", 1.5), ("text", "a|b")]),
        Picture(SVG, "why"),
    ],
)


def test_markdown_has_the_table_and_the_picture_as_data() -> None:
    text = PAGE.to_markdown()
    assert text.startswith(
        "## A title\n\nA paragraph.\n\n| name | value |\n| :-- | :-- |\n| loss | 1.5 |\n"
    )
    assert r"| text | a\|b |" in text
    found = re.search(r"!\[why\]\(data:image/svg\+xml;base64,([^)]*)\)", text)
    assert found is not None
    assert base64.b64decode(found[1]).decode() == SVG


def test_html_is_one_file_with_numbers_on_the_right() -> None:
    text = PAGE.to_html()
    assert text.startswith("<!doctype html>")
    assert '<td>loss</td><td class="number">1.5</td>' in text
    assert SVG in text
    assert "http" not in text.replace(SVG, "")


def test_what_a_model_wrote_draws_nothing() -> None:
    evil = "<script>alert(1)</script>\n# head ![x](http://evil/a.png) `code` *bold*\n"
    page = Page(evil, [evil, Heading(evil), Quote(evil), Table((evil,), [(evil,)])])
    assert "<script>" not in page.to_html()
    text = page.to_markdown()
    assert re.search(r"(?<!\\)<script", text) is None
    assert re.search(r"(?<!\\)!\[|(?<!\\)\]\(", text.replace("!\\[", "")) is None


LINES = [
    "~~~", "```", "---", "===", "***", "+ a", "- a", "* a", "1. a", "12) a", "# a", "> a", "    code", "\tcode",
    "http://evil.example/a", "see https://evil.example", "www.evil.example", "WWW.evil.example", "a@evil.example",
    "ftp://evil.example", "&lt;b&gt;", "&#58;", "<b>", "a | b", "| - |", "~~gone~~", "[a]: http://x", "[^1]", "![a](b)",
    "$x$", "\\", "a\\", "", " ", "1.5 is a number. 2", "Mr. X: yes.",
]  # fmt: skip
SHOWN = {
    "blockquote_open",
    "blockquote_close",
    "paragraph_open",
    "paragraph_close",
    "inline",
    "heading_open",
}


def read_drawn(text: str) -> tuple[set[str], str]:
    """Return what a reader of Markdown, tables and addresses included, draws, and the words that it
    shows.
    """
    tokens = MarkdownIt("gfm-like").parse(text)
    inner = [child for token in tokens for child in token.children or []]
    kinds = {token.type for token in tokens} | {
        child.type for child in inner if child.type != "text"
    }
    words = [
        child.content if child.type == "text" else " "
        for token in tokens
        for child in token.children or [token]
    ]
    return kinds, "".join(words).replace("\u00a0", " ")


@pytest.mark.parametrize("line", LINES)
def test_no_line_of_a_sample_draws_and_all_of_it_is_shown(line: str) -> None:
    for lines in ([line], ["before", line], [line, "after"], ["before", line, "after"]):
        kinds, shown = read_drawn(
            "\n\n".join(Page("t", [Quote("\n".join(lines))]).to_markdown().split("\n\n")[1:])
        )
        assert kinds <= SHOWN | {"softbreak"}, (lines, kinds)
        assert shown.split() == " ".join(lines).split()


@given(st.text(alphabet="~`-=*_+#>|[]()!<&;:/.1 a@w\t\\", max_size=30))
@settings(max_examples=200, deadline=None)
def test_no_signs_of_a_sample_draw(line: str) -> None:
    kinds, shown = read_drawn("\n".join(Page("t", [Quote(line)]).to_markdown().split("\n")[2:]))
    assert kinds <= SHOWN | {"softbreak"}, kinds
    assert shown.split() == line.split()


def test_an_empty_quote_is_still_a_quote() -> None:
    assert Page("t", [Quote("")]).to_markdown() == "## t\n\n>"
