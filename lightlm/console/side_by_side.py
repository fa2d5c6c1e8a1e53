"""Texts side by side, a column each: several versions' answers to the same prompt."""

from collections.abc import Mapping

from rich import box
from rich.console import RenderableType
from rich.table import Table

from lightlm.console.terminal import render_text


def render_side_by_side(texts: Mapping[str, str]) -> RenderableType:
    """Return the texts, escaped, in columns of the same width under their names."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    for name in texts:
        table.add_column(render_text(name), ratio=1, overflow="fold")
    table.add_row(*(render_text(text) for text in texts.values()))
    return table
