"""The floors of the house hold, and nothing heavy is imported before it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "transformers", "datasets", "mlflow", "matplotlib", "pandas", "scipy"}
VAGUE = {"utils", "util", "common", "helpers", "helper", "core", "base", "misc", "manager"}


def list_top_imports(path: Path) -> set[str]:
    """Return the outermost names of what importing a module imports at once."""
    names: set[str] = set()
    pending: list[ast.AST] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            pending += list(ast.iter_child_nodes(node))

    return names


def list_entrances() -> list[Path]:
    """Return the modules that a person's first command imports: all of flows/, and every
    `__init__`.
    """
    return sorted([*(ROOT / "flows").rglob("*.py"), *(ROOT / "lightlm").rglob("__init__.py")])


def test_every_import_contract_of_pyproject_is_kept() -> None:
    script = (
        "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-1000:]
    assert " 0 broken" in answer.stdout


@pytest.mark.parametrize("path", list_entrances(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_an_entrance_imports_nothing_heavy_at_its_top(path: Path) -> None:
    assert list_top_imports(path) & HEAVY == set()


def test_the_command_line_imports_no_prefect_at_its_top() -> None:
    assert "prefect" not in list_top_imports(ROOT / "flows" / "cli" / "main.py")


def test_no_module_has_a_name_that_says_nothing() -> None:
    names = [path for room in ("flows", "lightlm") for path in (ROOT / room).rglob("*.py")]
    assert [str(path) for path in names if path.stem in VAGUE] == []
