"""Uploads: files land in their own folder under the home, under harmless names, within bounds."""

from pathlib import Path

import pytest

import lightlm.studio.uploads
from lightlm.errors import InputError
from lightlm.studio.uploads import clean_name, split_name
from tests.studio.conftest import Page


def test_one_file_is_a_data_set_and_several_are_their_folder(page: Page) -> None:
    upload = page.post("/api/uploads", {"label": "My notes"})["upload"]
    first = page.client.put(f"/api/uploads/{upload}/one%20day.txt", content=b"a river").json()
    path = Path(first["source"])
    assert path.read_bytes() == b"a river"
    assert path.name == "one day.txt"
    assert path.is_relative_to(page.home / "studio" / "uploads")

    second = page.client.put(f"/api/uploads/{upload}/more/two.txt", content=b"a stone").json()
    assert second["source"] == str(path.parent)
    assert path.parent.name == "My notes"
    assert (path.parent / "more" / "two.txt").read_bytes() == b"a stone"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("../../etc/passwd", ["etc", "passwd"]), ("/etc/passwd", ["_", "etc", "passwd"]),
        ("a\\b.txt", ["a", "b.txt"]), ("a/./b.txt", ["a", "b.txt"]), ("sour*ce[1]?.txt", ["sour_ce_1__.txt"]),
        ("line\nbreak\x1b.txt", ["line_break_.txt"]), ("C:\\x.txt", ["C_", "x.txt"]),
    ],
)  # fmt: skip
def test_a_name_keeps_inside_of_its_folder(name: str, parts: list[str]) -> None:
    assert [part for part in split_name(name) if part != "_"] == [
        part for part in parts if part != "_"
    ]


@pytest.mark.parametrize("name", ["", "..", "../..", "/".join("abcdefghij")])
def test_a_name_of_nothing_or_too_deep_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="no name for an uploaded file"):
        split_name(name)


@pytest.mark.parametrize("letter", ["x", "\u7ae0", "\U0001f600"])
def test_a_long_name_keeps_its_suffix_and_fits_a_disk(letter: str, tmp_path: Path) -> None:
    name = clean_name(letter * 300 + ".jsonl.gz")
    assert name.endswith(f"{letter}.jsonl.gz")
    (tmp_path / name).write_bytes(b"")
    (tmp_path / clean_name(letter * 100 + "." + letter * 200)).write_bytes(b"")


def test_two_files_whose_names_become_one_are_both_kept(page: Page) -> None:
    upload = page.post("/api/uploads")["upload"]
    long = "x" * 250
    names = ["day%3A1.txt", "day%3F1.txt", f"{long}1.txt", f"{long}2.txt"]
    for number, name in enumerate(names):
        answer = page.client.put(f"/api/uploads/{upload}/{name}", content=b"%d" % number)
        assert answer.json()["files"] == number + 1
    kept = {path.name: path.read_bytes() for path in page.home.rglob("*.txt")}
    assert (kept["day_1.txt"], kept["day_1-2.txt"]) == (b"0", b"1")
    assert sorted(kept.values()) == [b"0", b"1", b"2", b"3"]


def test_more_than_an_upload_takes_is_refused_and_leaves_nothing(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = page.post("/api/uploads")["upload"]
    monkeypatch.setattr(lightlm.studio.uploads, "MOST_BYTES", 10)
    refused = page.client.put(f"/api/uploads/{upload}/a.txt", content=b"x" * 11)
    assert refused.status_code == 400
    assert "give its path" in refused.json()["error"]
    assert [path for path in page.home.rglob("*") if path.is_file()] == []


def test_an_upload_that_was_not_begun_is_refused(page: Page) -> None:
    for number in ("0123456789ab", "..", "%2e%2e"):
        answer = page.client.put(f"/api/uploads/{number}/a.txt", content=b"x")
        assert answer.status_code in (400, 404, 405), answer.text
    assert list(page.home.glob("**/a.txt")) == []
