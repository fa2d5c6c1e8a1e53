"""README and its companions point at things that exist."""

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lightlm.errors import ParameterError
from lightlm.params import load_params, parse_assignments
from lightlm_flows.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
MOST_WORDS = 25
STIFF = re.compile(
    r"\b(?:(?:is|are|was) said|told to|foreseen|foresees|nobody|whoever|learnt|colour|behaviour|anew)\b|^Of ",
    re.IGNORECASE,
)
"""Words that the documents avoid: an actor is missing, or a plainer word is there."""

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
def test_every_link_to_a_heading_leads_to_one(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", path.read_text(encoding="utf-8"))
    local = [
        (path.parent / name if name else path, anchor)
        for name, anchor in links
        if "://" not in name
    ]
    assert [
        anchor
        for target, anchor in local
        if anchor not in list_anchors(target.read_text(encoding="utf-8"))
    ] == []


def list_anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_a_heading_has_the_anchor_that_links_use() -> None:
    assert list_anchors("# A: b `c`\n```sh\n# no heading\n```\n## Two words\n") == {
        "a-b-c",
        "two-words",
    }


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_name_of_the_code_is_defined_there(path: Path) -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", path.read_text(encoding="utf-8"))
    undefined = [
        f"{module}::{name}"
        for module, name in named
        if not re.search(
            rf"^(?:class|def) {name}\b|^{name} =",
            (ROOT / module).read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    ]
    assert undefined == []


def test_the_index_lists_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    listed = set(re.findall(r"\]\(([\w-]+\.md)\)", index.read_text(encoding="utf-8")))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md") if path != index}


def list_sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a document: of its paragraphs, list items and cells of tables, without
    code, the generated map and the targets of links.
    """
    text = re.sub(r"^```.*?^```|^<!-- map.*end of map -->", "", text, flags=re.M | re.S)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "code", text))
    text = re.sub(r"^\|.*\|$", lambda row: row[0].replace("|", "\n\n"), text, flags=re.M)
    for part in re.split(r"\n\s*\n|\n(?=#)|\n\s*(?:\*|-|\d+\.)\s", text):
        yield from re.split(r"(?<=[.?!;])\s+", " ".join(part.replace("**", "").split()))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_sentence_is_short_and_plain(path: Path) -> None:
    sentences = [*list_sentences(path.read_text(encoding="utf-8"))]
    assert [line for line in sentences if len(re.findall(r"\S*\w\S*", line)) > MOST_WORDS] == []
    assert [line for line in sentences if STIFF.search(line)] == []


def test_a_long_or_stiff_sentence_is_found() -> None:
    text = "| Of a run. |\n\n```sh\nit is said\n```\n* It `is said` so.\n"
    first, second = [*list_sentences(text)][-2:]
    assert STIFF.search(first)
    assert not STIFF.search(second)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_make_target_that_is_named_exists(path: Path) -> None:
    code = re.findall(r"`([^`\n]+)`|^\s*\$? ?(make .*)$", path.read_text(encoding="utf-8"), re.M)
    named = {
        match[1]
        for words in code
        if (match := re.match(r"(?:\S+=\S+ )?make ([a-z-]+)", words[0] or words[1]))
    }
    assert named <= read_makefile_targets()


def list_lightlm_commands(text: str) -> Iterator[list[str]]:
    """Yield the words behind `lightlm` of every command in a document, in its code blocks and
    between backticks.
    """
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    prompts = re.findall(r"^\$ (.*)$", text, re.M)
    lines = [line for block in blocks for line in block.splitlines()] + prompts
    inline = re.findall(r"`(lightlm [^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    for line in [*lines, *inline]:
        found = re.search(r"(?:^|[\s\"(/])lightlm ((?!-)[^|&;)]+)", line.partition(" #")[0])
        if found:
            yield shlex.split(found[1].replace("--pool-type ...", ""))


def check_lightlm_command(words: list[str]) -> str | None:
    """Return what is wrong with a command of `lightlm`, as far as it shows without running it; None
    = nothing.
    """
    # Its help is shown only after all its options are known to exist.
    shown = CliRunner().invoke(app, [*words, "--help"])
    if shown.exit_code:
        return shown.output

    parts = [word.split("=", 1) if word.startswith("--") else [word] for word in words]
    given = list(pairwise(part for word in parts for part in word))
    settings = [
        value
        for option, value in given
        if option in ("--set", "-s") and value != "SECTION.KEY=VALUE"
    ]

    # A path names a person's own file, which is not here.
    presets = [
        value
        for option, value in given
        if option in ("--preset", "-p") and not value.startswith("./")
    ]

    try:
        load_params(*(presets or ["base"]), parse_assignments(settings))
    except ParameterError as error:
        return str(error)

    return None


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_of_ours_exists_with_its_options_settings_and_presets(path: Path) -> None:
    commands = list(list_lightlm_commands(path.read_text(encoding="utf-8")))
    wrong = [
        f"lightlm {shlex.join(words)}: {why}"
        for words in commands
        if (why := check_lightlm_command(words))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "words",
    [
        "trian --hours 1",
        "train --hour 1",
        "train --set model.layers=3",
        "train --set=model.Layers=3",
        "train --preset no-such",
        "plan -x",
    ],
)
def test_a_command_that_does_not_exist_is_found(words: str) -> None:
    assert check_lightlm_command(words.split())
    (found,) = list_lightlm_commands(f"```sh\n.venv/bin/lightlm {words}   # a remark\n```\n")
    assert found == words.split()
