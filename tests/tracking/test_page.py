"""Tests of pages: the same words in Markdown and in HTML, and nothing that a text can draw or run."""

import base64
import re

from lightlm.tracking.page import Heading, Page, Picture, Quote, Table

SVG = '<svg xmlns="http://www.w3.org/2000/svg"><text>0</text></svg>'
PAGE = Page(
    "A title", ["A paragraph.", Table(("name", "value"), [("loss", 1.5), ("text", "a|b")]), Picture(SVG, "why")]
)


def test_markdown_has_the_table_and_the_picture_as_data() -> None:
    text = PAGE.to_markdown()
    assert text.startswith("## A title\n\nA paragraph.\n\n| name | value |\n| :-- | :-- |\n| loss | 1.5 |\n")
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


def test_an_empty_quote_is_still_a_quote() -> None:
    assert Page("t", [Quote("")]).to_markdown() == "## t\n\n>"
