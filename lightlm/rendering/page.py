"""A page about a run: paragraphs, tables and pictures, as Markdown (Prefect) and HTML (MLflow)."""

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

STYLE = """
:root { color-scheme: light dark }
.plot { width: 100%; height: auto; fill: currentColor }
.plot .grid { stroke: currentColor; opacity: 0.15 }
.plot .bar { fill: #8c959f } .plot .chosen { fill: #d9480f } figure { margin: 18px 0 }
@media (prefers-color-scheme: dark) {
  body { color: #dfe5ea !important; background: #14181c !important } }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f272d; background: #fff; max-width: 860px;
  margin: 24px auto; padding: 0 16px }
table { border-collapse: collapse; margin: 12px 0 } svg { max-width: 100% }
th, td { overflow-wrap: anywhere; text-align: left; padding: 4px 14px 4px 0;
  border-bottom: 1px solid #8884; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums }
th { color: #5f7281; font-weight: 600 }
blockquote { margin: 6px 0; padding-left: 12px; border-left: 3px solid #8886; white-space: pre-wrap;
  overflow-wrap: anywhere }
h3 { margin: 28px 0 8px } figcaption { color: #5f7281; font-size: 13px }
@media (prefers-color-scheme: dark) { th, figcaption { color: #9aa9b5 } }
/* A plot is scaled to the page: on a phone to half, where its words must still be read. */
@media (max-width: 600px) { .plot text { font-size: 21px } }
"""


@dataclass(frozen=True)
class Table:
    """Rows under column names; numbers stand on the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | int]]


@dataclass(frozen=True)
class Picture:
    """An SVG and what it shows."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Quote:
    """Text that is not ours: a model's, with all its line ends."""

    text: str


@dataclass(frozen=True)
class Heading:
    """What the blocks below it are about."""

    text: str


_DRAWS = re.compile(
    r"[\\`*_\[\]<>#~|&@!]|^[-+=]|(?<=\d)[.)](?=\s|$)|:(?=//)|(?<=\bwww)\.", re.IGNORECASE
)
"""What Markdown draws: emphasis, links, code, tables, HTML; rules, lists and headings; addresses
that become links.
"""

Block = str | Table | Picture | Quote | Heading


@dataclass(frozen=True)
class Page:
    """A title and blocks below it; a plain string is a paragraph."""

    title: str
    blocks: Sequence[Block]

    def to_markdown(self) -> str:
        """Return the page in Markdown; pictures stand in it as data."""
        return "\n\n".join([f"## {_escape(self.title)}", *map(_to_markdown, self.blocks)])

    def to_html(self) -> str:
        """Return the page as one file of HTML that needs nothing else."""
        body = "\n".join(map(_to_html, self.blocks))
        title = html.escape(self.title)
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, '
            f'initial-scale=1"><title>{title}</title>'
            f"<style>{STYLE}</style></head><body><h2>{title}</h2>\n{body}\n</body></html>"
        )


def _to_markdown(block: Block) -> str:
    if isinstance(block, str):
        return _escape(block)
    if isinstance(block, Quote):
        return "\n".join(f"> {_escape(line)}" for line in block.text.splitlines()) or ">"
    if isinstance(block, Heading):
        return f"### {_escape(block.text)}"

    if isinstance(block, Picture):
        data = base64.b64encode(block.svg.encode()).decode()
        return f"![{_escape(block.caption)}](data:image/svg+xml;base64,{data})"

    rows = [[_escape(str(cell)) for cell in row] for row in (block.columns, *block.rows)]
    lines = [rows[0], [":--"] * len(block.columns), *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _to_html(block: Block) -> str:
    if isinstance(block, str):
        return f"<p>{html.escape(block)}</p>"
    if isinstance(block, Quote):
        return f"<blockquote>{html.escape(block.text)}</blockquote>"
    if isinstance(block, Heading):
        return f"<h3>{html.escape(block.text)}</h3>"
    if isinstance(block, Picture):
        return f"<figure>{block.svg}<figcaption>{html.escape(block.caption)}</figcaption></figure>"
    head = "".join(f"<th>{html.escape(name)}</th>" for name in block.columns)
    rows = "".join(f"<tr>{''.join(map(_to_cell, row))}</tr>" for row in block.rows)
    return f"<table><tr>{head}</tr>{rows}</table>"


def _to_cell(value: str | float | int) -> str:
    kind = "" if isinstance(value, str) else ' class="number"'
    return f"<td{kind}>{html.escape(str(value))}</td>"


def _escape(text: str) -> str:
    """Return text as Markdown shows it literally: what a data set or a model wrote draws
    nothing.
    """
    line = text.replace("\n", " ")
    start = len(line) - len(line.lstrip())
    # Four spaces would begin a block of code, in which the signs below stand as they are written.
    return "\u00a0" * start + _DRAWS.sub(r"\\\g<0>", line[start:])
