"""README and its companions point at things that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def read_makefile_targets() -> set[str]:
    """Return the words that `make` takes here."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):", text, flags=re.MULTILINE))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_to_a_file(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_make_target_that_is_named_exists(path: Path) -> None:
    code = re.findall(r"`([^`\n]+)`|^\s*\$? ?(make .*)$", path.read_text(encoding="utf-8"), re.M)
    named = {match[1] for words in code if (match := re.match(r"(?:\S+=\S+ )?make ([a-z-]+)", words[0] or words[1]))}
    assert named <= read_makefile_targets()
