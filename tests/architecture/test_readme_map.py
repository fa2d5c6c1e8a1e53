"""README's map of the code is drawn from the modules' own first lines.

To draw it anew: .venv/bin/python tests/architecture/test_readme_map.py
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("flows", "lightlm", "params")
START = "<!-- map: drawn by tests/architecture/test_readme_map.py -->\n```text\n"
END = "```\n<!-- end of map -->"


def list_modules() -> list[Path]:
    """Return every module, a room's own `__init__` before its files, rooms after files."""
    modules = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    return sorted(modules, key=lambda path: (path.parent, path.name != "__init__.py", path.name))


def read_first_line(path: Path) -> str:
    """Return the first sentence of a module's docstring, which may take two lines, or nothing."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return " ".join(docstring.partition("\n\n")[0].split()) if docstring else ""


def draw_map() -> str:
    """Return one line a module: its path (a folder for its `__init__`) and its first line."""
    rows = []
    for path in list_modules():
        name = path.relative_to(ROOT).as_posix().removesuffix("__init__.py")
        rows.append((name, read_first_line(path)))
    width = max(len(name) for name, _ in rows) + 2
    return "".join(f"{name:<{width}}{line}\n" for name, line in rows)


def split_readme(text: str) -> tuple[str, str, str]:
    """Return what stands before, in and after the map of README."""
    before, start, rest = text.partition(START)
    block, end, after = rest.partition(END)
    assert start and end, f"README.md has no map between {START!r} and {END!r}"
    return before, block, after


def test_every_module_says_in_its_first_line_what_it_is() -> None:
    silent = [str(path.relative_to(ROOT)) for path in list_modules() if not read_first_line(path)]
    assert silent == []


def test_every_first_line_is_one_whole_sentence_or_phrase() -> None:
    broken = {
        str(path.relative_to(ROOT)): line
        for path in list_modules()
        if (line := read_first_line(path)) and line[-1] not in ".?!"
    }
    assert broken == {}, "the map shows first lines alone: let them end within the line"


def test_the_map_in_readme_is_the_map_of_the_code() -> None:
    _, block, _ = split_readme((ROOT / "README.md").read_text(encoding="utf-8"))
    assert block == draw_map(), "run .venv/bin/python tests/architecture/test_readme_map.py"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    head, _, tail = split_readme(readme.read_text(encoding="utf-8"))
    readme.write_text(head + START + draw_map() + END + tail, encoding="utf-8")
