"""Files and functions stay small enough to be read in one go; what is larger says why."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 70

LARGER: dict[str, str] = {
    "lightlm/params.py": "the one list of what a person may choose",
    "lightlm/data/tables/csv_rows.py::split_records": "one state machine",
}
"""File, or file::function -> why it is larger. An entry that is not needed is an error."""


def list_large() -> dict[str, int]:
    """Return {file or file::function: lines} of all that exceeds its limit."""
    large = {}
    for path in (path for room in ("flows", "lightlm") for path in (ROOT / room).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(ROOT).as_posix()
        if (lines := len(text.splitlines())) > MAX_FILE_LINES:
            large[name] = lines
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    large[f"{name}::{node.name}"] = length

    return large


def test_whatever_is_large_has_a_reason_and_nothing_else_has() -> None:
    assert set(list_large()) == set(LARGER), list_large()
