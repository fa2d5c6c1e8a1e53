"""What a package index and a citation show: one version, one license, links that lead somewhere."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import lightlm

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
ADDRESS = "https://example.org/owner/lightlm"
HISTORY = {"CHANGELOG.md", "constraints.txt", "requirements.lock"}
"""Files that name versions of the past, or of others."""


@pytest.fixture(scope="module")
def setup() -> ModuleType:
    """Return setup.py as a module."""
    spec = importlib.util.spec_from_file_location("lightlm_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def list_text_files() -> list[Path]:
    """Return the files at the top of the repository and all code, without those in HISTORY."""
    tops = [path for path in ROOT.iterdir() if path.is_file() and path.name not in HISTORY]
    code = [path for room in ("flows", "lightlm", "params") for path in (ROOT / room).rglob("*.py")]
    return [*tops, *code]


def test_the_version_is_written_in_one_file() -> None:
    wanted = re.compile(rf"(?<![\d.]){re.escape(lightlm.__version__)}(?![\d.]*\d)")
    holders = [
        path.relative_to(ROOT).as_posix()
        for path in list_text_files()
        if wanted.search(path.read_text(encoding="utf-8", errors="ignore"))
    ]
    assert holders == ["lightlm/__init__.py"]
    assert "version" in PROJECT["dynamic"]


def test_the_changelog_has_a_section_for_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## \[([^\]]+)\](?: - (\d{4}-\d\d-\d\d))?$", text, re.MULTILINE)
    assert lightlm.__version__ in dict(sections) or "Unreleased" in dict(sections)
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_package_and_citation_agree_and_name_the_license_file() -> None:
    assert CITATION["title"].lower() == PROJECT["name"]
    assert CITATION["license"] == PROJECT["license"]
    assert [author["name"] for author in CITATION["authors"]] == [
        author["name"] for author in PROJECT["authors"]
    ]
    assert set(CITATION["keywords"]) <= set(PROJECT["keywords"])
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])


def test_the_citation_has_what_its_format_requires() -> None:
    # citation-file-format 1.2.0, schema.json: "required"
    required = {"cff-version", "message", "title", "authors"}
    assert required <= set(CITATION)
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["type"] == "software"


def test_no_address_is_invented() -> None:
    assert "urls" not in PROJECT
    assert not {"url", "repository-code", "doi"} & set(CITATION)


def test_every_package_is_typed() -> None:
    assert [
        top for top in ("flows", "lightlm", "params") if not (ROOT / top / "py.typed").is_file()
    ] == []


def test_a_package_page_with_an_address_has_absolute_links_alone(setup: ModuleType) -> None:
    page = setup.render_package_page(README, ADDRESS)
    targets = re.findall(r"\]\(([^)]+)\)", page)
    assert targets
    assert [target for target in targets if not target.startswith("https://")] == []
    assert "![The panel while a model trains" in page
    assert f"({ADDRESS}/raw/HEAD/docs/panel.svg)" in page
    assert f"({ADDRESS}/blob/HEAD/docs/tutorial.md)" in page


def test_a_package_page_without_an_address_has_no_relative_link(setup: ModuleType) -> None:
    page = setup.render_package_page(README, None)
    assert [target for target in re.findall(r"\]\(([^)]+)\)", page) if "://" not in target] == []
    assert "docs/panel.svg" not in page


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](docs/a.md#b)", f"[a]({ADDRESS}/blob/HEAD/docs/a.md#b)"),
        ("![a](docs/a.png)", f"![a]({ADDRESS}/raw/HEAD/docs/a.png)"),
        ("[a](#b)", f"[a]({ADDRESS}#b)"),
        ("[a](https://pypi.org)", "[a](https://pypi.org)"),
    ],
)
def test_a_link_becomes_absolute(setup: ModuleType, text: str, expected: str) -> None:
    assert setup.render_package_page(text, ADDRESS) == expected
    assert setup.render_package_page(text, f"{ADDRESS}/") == expected


def test_python_runs_the_package_as_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "lightlm", "--version"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == f"lightlm {lightlm.__version__}\n"
