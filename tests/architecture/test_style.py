"""The style that CONTRIBUTING.md asks for, counted: paragraphs, width, assignments, documentation, words.

`python tests/architecture/test_style.py [CHECKOUT]` prints the counts of a checkout.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
LONG_BODY_LINES = 12
LEAST_BLANK_FRACTION = 0.05
MOST_LONG_LINES_FRACTION = 0.005
MOST_COLUMNS = 100
MOST_PAIRS_PER_1000_LINES = 1.0
MOST_UNTYPED_DICTS = 40

STIFF = re.compile(
    r"\b(?:is|are) said\b|\btold to\b|\bforeseen\b|\bbeside\b|\bnobody\b|\bOf the \w"
)
"""Words that a reader has to decode. The field's plain words are in CONTRIBUTING.md."""

PATH = re.compile(
    r"\b(?:flows|lightlm|params|tests|benchmarks|docs|bin)/[\w./-]*\w\.(?:py|md|yaml|json)\b"
)


class Style(NamedTuple):
    """What the code of a checkout is like."""

    num_files: int
    num_lines: int
    blank_fraction: float
    """Fraction of blank lines in bodies of LONG_BODY_LINES and more."""
    long_fraction: float
    pairs_per_1000_lines: float
    comment_fraction: float
    num_untyped_dicts: int
    num_inner_imports: int
    num_flat_flows: int
    longest_function: int


def read_sources(root: Path = ROOT) -> dict[Path, str]:
    """Return the text of every module of the code."""
    paths = [path for room in ("flows", "lightlm") for path in (root / room).rglob("*.py")]
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


def count_blank(lines: list[str]) -> int:
    return sum(not line.strip() for line in lines)


def measure(root: Path = ROOT) -> Style:
    """Return the style of a checkout."""
    sources = read_sources(root)
    lines = [line for source in sources.values() for line in source.splitlines()]
    trees = [ast.parse(source) for source in sources.values()]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    imports = [
        one
        for function in functions
        for one in ast.walk(function)
        if isinstance(one, ast.Import | ast.ImportFrom)
    ]
    bodies = [
        source.splitlines()[first - 1 : last]
        for source in sources.values()
        for first, last in list_bodies(source)
        if last - first + 1 >= LONG_BODY_LINES
    ]

    return Style(
        num_files=len(sources),
        num_lines=len(lines),
        blank_fraction=sum(map(count_blank, bodies)) / sum(map(len, bodies)),
        long_fraction=sum(len(line) > MOST_COLUMNS for line in lines) / len(lines),
        pairs_per_1000_lines=1000 * sum(map(is_pair_of_unrelated_values, nodes)) / len(lines),
        comment_fraction=sum(line.strip().startswith("#") for line in lines) / len(lines),
        num_untyped_dicts=sum(line.count("dict[str, Any]") for line in lines),
        num_inner_imports=len(imports),
        num_flat_flows=len(list((root / "flows").glob("*.py"))),
        longest_function=max((one.end_lineno or 0) - one.lineno + 1 for one in functions),
    )


def test_the_style_is_kept() -> None:
    style = measure()
    assert style.blank_fraction >= LEAST_BLANK_FRACTION, "blank lines between a function's steps"
    assert style.long_fraction < MOST_LONG_LINES_FRACTION, "lines within 100 columns"
    assert style.pairs_per_1000_lines < MOST_PAIRS_PER_1000_LINES, "one line assigns one value"
    assert style.num_untyped_dicts <= MOST_UNTYPED_DICTS, "a class, or JsonObject at a border"


def test_no_sentence_of_the_code_has_words_that_a_reader_must_decode() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path, source in read_sources().items()
        for match in STIFF.finditer(source)
    }
    assert found == set()


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


if __name__ == "__main__":
    for name, value in measure(Path(sys.argv[1]) if sys.argv[1:] else ROOT)._asdict().items():
        shown = f"{value:,.4f}" if isinstance(value, float) else f"{value:,}"
        sys.stdout.write(f"{name:22} {shown}\n")
