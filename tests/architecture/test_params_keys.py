"""Every value of params/base.yaml is explained where it stands, and used somewhere."""

import ast
import re
from pathlib import Path

from pydantic import BaseModel

from lightlm.params import Params, load_params

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = {
    name: field.annotation
    for name, field in Params.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
}
KEYS = sorted(load_params().flatten())


def list_uses() -> set[str]:
    """Return the dotted names of all params that the code outside lightlm/params.py reads."""
    paths = [path for room in ("flows", "lightlm") for path in (ROOT / room).rglob("*.py")]
    uses: set[str] = set()
    for path in paths:
        if path != ROOT / "lightlm" / "params.py":
            uses |= find_uses(ast.parse(path.read_text(encoding="utf-8")))
    return uses


def find_uses(tree: ast.AST) -> set[str]:
    """Return the params read in a module: `….section.key`, or `name.key` of a section's name.

    A name belongs to a section by its annotation (`params: DatasetParams`), by what it was
    assigned (`training = params.training`), or by being called like it.
    """
    owners: dict[str, set[str]] = {name: {name} for name in SECTIONS}
    by_class = {section.__name__: name for name, section in SECTIONS.items() if section}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            target = node.arg if isinstance(node, ast.arg) else ast.unparse(node.target)
            for word in re.findall(r"\w+", ast.unparse(node.annotation)):
                if word in by_class:
                    owners.setdefault(target.rpartition(".")[2], set()).add(by_class[word])
        elif isinstance(node, ast.Assign):
            section = node.value.attr if isinstance(node.value, ast.Attribute) else ""
            for target in node.targets if section in SECTIONS else ():
                owners.setdefault(ast.unparse(target).rpartition(".")[2], set()).add(section)

    uses = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            base = node.value
            name = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
            for section in owners.get(name, ()):
                uses.add(f"{section}.{node.attr}")
                if node.attr == "model_dump":
                    uses |= {f"{section}.{key}" for key in SECTIONS[section].model_fields}

    return uses


def read_comments() -> dict[str, str]:
    """Return {dotted name: the comment on its line} of params/base.yaml."""
    comments = {}
    section = ""
    for line in (ROOT / "params" / "base.yaml").read_text(encoding="utf-8").splitlines():
        outer = re.match(r"(\w+):", line)
        inner = re.match(r"  (\w+):", line)
        if outer:
            section = outer[1]
        elif inner:
            comments[f"{section}.{inner[1]}"] = line.partition(" #")[2].strip()
    return comments


def test_the_code_reads_every_param() -> None:
    assert sorted(set(KEYS) - list_uses()) == [], "nothing reads these: delete them, or use them"


def test_every_value_stands_with_its_unit_or_reason() -> None:
    # null needs none: the file's head says that LightLM then chooses.
    given = {key for key, value in load_params().flatten().items() if value is not None}
    silent = sorted(given - {key for key, comment in read_comments().items() if comment})
    assert silent == [], "params/base.yaml: say the unit or the reason of these"


def test_base_yaml_holds_one_line_for_each_param() -> None:
    assert sorted(read_comments()) == KEYS


def test_a_use_is_found_by_chain_annotation_and_assignment() -> None:
    code = "def f(p: DatasetParams): g(p.source, x.tracking.promote)\nt = params.training\nt.seed"
    found = {"dataset.source", "tracking.promote", "training.seed"}
    assert found <= find_uses(ast.parse(code))
    assert "dataset.config" not in find_uses(ast.parse(code))
