"""The style that CONTRIBUTING.md asks for, counted: paragraphs, width, one assignment a line, documentation."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LONG_BODY_LINES = 12
LEAST_BLANK_FRACTION = 0.05
MOST_LONG_LINES_FRACTION = 0.005
MOST_COLUMNS = 100
MOST_PAIRS_PER_1000_LINES = 1.0

PATH = re.compile(
    r"\b(?:flows|lightlm|params|tests|benchmarks|docs|bin)/[\w./-]*\w\.(?:py|md|yaml|json)\b"
)


def read_sources() -> dict[Path, str]:
    """Return the text of every module of the code."""
    paths = [path for room in ("flows", "lightlm") for path in (ROOT / room).rglob("*.py")]
    return {path: path.read_text(encoding="utf-8") for path in paths}


def list_bodies(source: str) -> Iterator[tuple[int, int]]:
    """Yield the first and the last line of each function's body, its documentation aside."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        if body:
            yield body[0].lineno, body[-1].end_lineno or 0


def is_pair_of_unrelated_values(node: ast.AST) -> bool:
    """Return whether an assignment is `a, b = x, y`."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Tuple)
        and isinstance(node.value, ast.Tuple)
    )


def test_long_bodies_have_paragraphs() -> None:
    num_lines = num_blank = 0
    for source in read_sources().values():
        lines = source.splitlines()
        for first, last in list_bodies(source):
            if last - first + 1 >= LONG_BODY_LINES:
                body = lines[first - 1 : last]
                num_lines += len(body)
                num_blank += sum(not line.strip() for line in body)
    assert num_blank / num_lines >= LEAST_BLANK_FRACTION


def test_hardly_a_line_is_longer_than_100_columns() -> None:
    lines = [line for source in read_sources().values() for line in source.splitlines()]
    num_long = sum(len(line) > MOST_COLUMNS for line in lines)
    assert num_long / len(lines) < MOST_LONG_LINES_FRACTION


def test_a_line_assigns_one_value_unless_the_values_belong_together() -> None:
    sources = read_sources().values()
    num_pairs = sum(
        is_pair_of_unrelated_values(node)
        for source in sources
        for node in ast.walk(ast.parse(source))
    )
    num_lines = sum(len(source.splitlines()) for source in sources)
    assert 1000 * num_pairs / num_lines < MOST_PAIRS_PER_1000_LINES


def test_a_constant_is_documented_by_its_unit_and_not_by_a_fragment() -> None:
    fragments = [
        f"{path.relative_to(ROOT)}:{number}"
        for path, source in read_sources().items()
        for number, line in enumerate(source.splitlines(), 1)
        if re.match(r'\s*"""(Of|The same)\b', line)
    ]
    assert fragments == [], (
        "begin with the unit: 'Seconds that ...', 'Fraction of the budget that ...'"
    )


def test_a_file_that_the_code_names_is_there() -> None:
    sources = read_sources()
    sources |= {path: path.read_text(encoding="utf-8") for path in (ROOT / "params").glob("*.yaml")}
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path, source in sources.items()
        for name in PATH.findall(source)
        if "NAME" not in name and not (ROOT / name).exists()
    }
    assert missing == set()
