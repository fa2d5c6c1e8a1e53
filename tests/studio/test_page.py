"""The page's files: all there, nothing from elsewhere, nothing that its own policy refuses."""

import re
from pathlib import Path

import pytest

from lightlm.studio.app import PAGE

FILES = sorted(PAGE.iterdir())
INDEX = (PAGE / "index.html").read_text(encoding="utf-8")


def test_every_file_that_is_named_is_there_and_every_file_is_named() -> None:
    named = set(re.findall(r'(?:href|src)="/page/([\w.]+)"', INDEX))
    for path in PAGE.glob("*.js"):
        named |= set(re.findall(r'from "\./([\w.]+)"', path.read_text(encoding="utf-8")))
    assert named == {path.name for path in FILES} - {"index.html"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_names_no_other_server(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"https?://|//cdn|@import|url\(", text) == []


def test_the_page_has_no_scripts_and_styles_inside_of_it() -> None:
    assert re.findall(r"<style|\sstyle=|\son\w+=|javascript:|<script(?![^>]*\ssrc=)", INDEX) == []


@pytest.mark.parametrize("path", sorted(PAGE.glob("*.js")), ids=lambda path: path.name)
def test_a_script_sets_text_and_never_html(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert (
        re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
        )
        == []
    )


def test_every_id_that_a_script_looks_for_is_in_the_page() -> None:
    ids = set(re.findall(r'\sid="([\w-]+)"', INDEX))
    for path in PAGE.glob("*.js"):
        wanted = re.findall(r'find\("#([\w-]+)"', path.read_text(encoding="utf-8"))
        assert set(wanted) <= ids, path.name


def test_every_field_has_a_label() -> None:
    fields = re.findall(r"<(?:input|select|textarea)\b[^>]*>", INDEX)
    for field in fields:
        name = re.search(r'id="([\w-]+)"', field)
        assert name is not None, field
        is_inside = re.search(rf'<label[^>]*><input id="{name[1]}"', INDEX)
        assert is_inside or f'for="{name[1]}"' in INDEX, field
