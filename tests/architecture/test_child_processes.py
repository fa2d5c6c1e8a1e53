"""Every Python that LightLM starts is started by child_process.python_command, which keeps the
current folder out.
"""

import ast
import subprocess
from pathlib import Path

import pytest

from lightlm.child_process import SAFE_PATH, python_command

ROOT = Path(__file__).resolve().parents[2]
STARTER = ROOT / "lightlm" / "child_process.py"
HINTS = ROOT / "flows" / "hints.py"  # shows a person what to type
ELSEWHERE = sorted(
    path
    for room in ("flows", "lightlm")
    for path in (ROOT / room).rglob("*.py")
    if path not in (STARTER, HINTS)
)
SUSPECTS = {
    "sys.executable",
    "sys._base_executable",
    "runpy",
    "multiprocessing",
    "ProcessPoolExecutor",
}


def find_starts(code: str) -> list[str]:
    """Return each use of something that starts a Python, with its line."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        elif isinstance(node, ast.Import):
            names = [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").partition(".")[0], *(alias.name for alias in node.names)]
        else:
            continue
        found += [f"line {node.lineno}: {name}" for name in names if name in SUSPECTS]

    return found


@pytest.mark.parametrize("path", ELSEWHERE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_starts_python_by_python_command_alone(path: Path) -> None:
    assert find_starts(path.read_text(encoding="utf-8")) == [], (
        "use lightlm.child_process.python_command"
    )


@pytest.mark.parametrize(
    "code",
    [
        "import sys; run([sys.executable, '-m', "
        "'x'])", "import multiprocessing", "from runpy import run_module",
        "from concurrent.futures import ProcessPoolExecutor", "import multiprocessing.pool",
    ],
)  # fmt: skip
def test_a_start_of_python_is_found(code: str) -> None:
    assert find_starts(code) != []


def test_a_relative_folder_on_the_search_path_gives_nothing(tmp_path: Path) -> None:
    (tmp_path / "h11.py").write_text("raise SystemExit('foreign code')\n")
    code = (
        "import sys; from lightlm.child_process import refuse_relative_folders; "
        "refuse_relative_folders(); "
    )
    code += "sys.path[:0] = ['.']; import h11"

    done = subprocess.run(
        [*python_command("x")[:2], "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_a_child_runs_no_file_of_the_current_folder_and_neither_does_its_own_child(
    tmp_path: Path,
) -> None:
    hostile = "raise SystemExit('foreign code')\n"
    for name in ("queue", "random", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(hostile)
    library = tmp_path / "library"
    library.mkdir()
    (library / "child.py").write_text(
        "import queue, random, subprocess, sys\nif len(sys.argv) > 1:\n"
    )

    with (library / "child.py").open("a") as file:
        file.write("    sys.exit(subprocess.run([sys.executable, '-m', 'child']).returncode)\n")

    done = subprocess.run(
        python_command("child", "parent"),
        cwd=tmp_path,
        env={"PYTHONPATH": str(library), **SAFE_PATH},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
