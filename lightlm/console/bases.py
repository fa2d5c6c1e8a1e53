"""The table of the models that training can start from."""

from collections.abc import Sequence

from rich.console import RenderableType

from lightlm.bases.catalog import Listed
from lightlm.console.tables import open_table
from lightlm.console.terminal import render_text
from lightlm.quantities import format_bytes, format_count

LONGEST_PROBLEM = 80
"""Characters of the reason why a model is none to start from."""


def render_bases(listed: Sequence[Listed], registered: Sequence[tuple[str, str]]) -> RenderableType:
    """Return one row a base; `registered` are names of models with their parameters, as text."""
    table = open_table("source", "where", "parameters", "size", "context", "license", "languages")
    for column in (2, 3, 4):
        table.columns[column].justify = "right"
    table.columns[0].overflow = "fold"

    for one in listed:
        parameters = "" if one.num_parameters is None else format_count(one.num_parameters)
        known = (
            parameters,
            "" if one.num_bytes is None else format_bytes(one.num_bytes),
            "" if one.context_length is None else f"{one.context_length:,}",
            one.license,
            ", ".join(one.languages),
        )
        if one.problem:
            known = ("", "", "", "", f"not usable: {one.problem[:LONGEST_PROBLEM]}")
        table.add_row(render_text(one.source), one.place, *(render_text(text) for text in known))

    for name, parameters in registered:
        shown = format_count(int(parameters)) if parameters.isdigit() else ""
        table.add_row(render_text(name), "registered", shown, "", "", "", "")
    return table
