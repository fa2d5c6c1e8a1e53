"""The built-in corpus: prose of the docstrings of the standard library and of the installed
packages.

Read from source files with `ast`, nothing is imported. A document is a module; the order is that of
a hash of its name, so that any prefix is a fair sample.
"""

import ast
import hashlib
import inspect
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

MIN_DOCUMENT_CHARACTERS = 400
"""Modules with less prose are left out: names and stubs, no text."""

_LEFT_OUT = re.compile(
    r"(^|/)(tests?|testing|idlelib|lib2to3|turtledemo|__pycache__|_vendor|vendored?)(/|$)|/test_[^/]*$"
)


@lru_cache(maxsize=1)
def list_modules() -> tuple[tuple[str, Path], ...]:
    """Return (module name, file) of every module in reading order."""
    roots = [Path(sysconfig.get_paths()["stdlib"]), Path(sysconfig.get_paths()["purelib"])]
    modules = {}
    for root in roots:
        for path in root.rglob("*.py"):
            relative = path.relative_to(root).as_posix()
            if relative.startswith(("site-packages/", "dist-packages/")) or _LEFT_OUT.search(
                relative
            ):
                continue
            modules[relative.removesuffix(".py").removesuffix("/__init__").replace("/", ".")] = path

    return tuple(
        sorted(modules.items(), key=lambda item: hashlib.sha256(item[0].encode()).digest())
    )


def read_python_docs() -> Iterator[str]:
    """Yield the prose of each module in order; "" for one with too little."""
    for name, path in list_modules():
        text = extract_prose(name, path)
        yield text if len(text) >= MIN_DOCUMENT_CHARACTERS else ""


def extract_prose(name: str, path: Path) -> str:
    """Return a module's docstrings under headings of what they describe; "" where it cannot be
    parsed.
    """
    try:
        source = path.read_text(encoding="utf-8", errors="strict")
        with warnings.catch_warnings():
            # other people's invalid escapes are not our reader's business
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (OSError, ValueError, SyntaxError, RecursionError):
        return ""
    parts = [f"# {name}", *_describe(tree, "")]
    return "\n\n".join(parts) if len(parts) > 1 else ""


def digest_python_docs() -> str:
    """Return a digest of the corpus: the Python version, and every module's name and size."""
    digest = hashlib.sha256(sys.version.encode())
    for name, path in list_modules():
        digest.update(f"{name} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


def _describe(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    own = ast.get_docstring(node, clean=False)
    if own:
        yield inspect.cleandoc(own)

    for child in node.body:
        if isinstance(child, ast.ClassDef):
            inner = list(_describe(child, f"{prefix}{child.name}."))
            if inner:
                yield f"## {prefix}{child.name}"
                yield from inner
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(child, clean=False)
            if text:
                yield f"## {prefix}{child.name}({', '.join(a.arg for a in child.args.args)})"
                yield inspect.cleandoc(text)
