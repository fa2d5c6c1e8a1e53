"""The page: its libraries are those that are pinned, and it is whole."""

import base64
import hashlib
import io
import re
import tarfile
from pathlib import Path

import pytest

from lightlm.errors import InputError
from lightlm.versions import web_export
from lightlm.versions.web_export import LIBRARIES, Library, provide_libraries, write_page


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with small archives of the pinned libraries' names, pinned instead."""
    folder = tmp_path / "archives"
    folder.mkdir()
    pinned = []
    for library in LIBRARIES:
        path = folder / library.archive
        with tarfile.open(path, "w:gz") as tar:
            for member in library.files:
                content = f"content of {member}".encode()
                described = tarfile.TarInfo(member)
                described.size = len(content)
                tar.addfile(described, io.BytesIO(content))
        digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
        pinned.append(library._replace(sha512=digest))
    monkeypatch.setattr(web_export, "LIBRARIES", tuple(pinned))
    return folder


def write_npm(folder: Path, lines: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `lines` of shell the only npm there is."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{lines}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_the_libraries_are_kept_so_that_a_second_page_asks_nothing(
    home: Path, archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_npm(tmp_path / "bin", f"cp {archives}/*.tgz .", monkeypatch)
    folder = provide_libraries(home)
    assert (folder / "transformers.min.js").read_text() == (
        "content of package/dist/transformers.min.js"
    )
    write_npm(tmp_path / "broken", "echo offline >&2; exit 1", monkeypatch)
    assert provide_libraries(home) == folder


def test_without_npm_archives_of_a_folder_serve(
    home: Path, archives: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"npm is missing.*npm pack @huggingface.*--libraries"):
        provide_libraries(home)
    assert (provide_libraries(home, archives) / "ort-wasm-simd-threaded.wasm").is_file()


def test_what_npm_says_is_shown(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_npm(tmp_path / "bin", "echo 'npm error network ENOTFOUND' >&2; exit 1", monkeypatch)
    with pytest.raises(InputError, match=r"npm error network ENOTFOUND.*--libraries FOLDER"):
        provide_libraries(home)


def test_an_archive_of_another_digest_is_refused(home: Path, archives: Path) -> None:
    path = archives / LIBRARIES[0].archive
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(InputError, match=r"transformers-4.*has the SHA-512 .*wanted"):
        provide_libraries(home, archives)
    path.unlink()
    with pytest.raises(InputError, match=f"has no {LIBRARIES[0].archive}"):
        provide_libraries(home, archives)


def test_the_archive_has_the_name_that_npm_gives_it() -> None:
    assert Library("@a/b", "1.2", "", {}).archive == "a-b-1.2.tgz"


def test_the_page_is_whole_and_no_name_can_become_markup(
    home: Path, archives: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    libraries = provide_libraries(home, archives)
    write_page(folder, libraries, "<script>alert(1)</script>", "It & more.", 128, 0.8)
    page = (folder / "index.html").read_text()
    assert "{{" not in page
    assert "<script>alert" not in page
    assert "It &amp; more." in page
    named = re.findall(r'(?:src|href)="([\w./-]+)"', page)
    named += re.findall(r'"\./([\w./-]+\.(?:js|mjs|wasm))"', (folder / "page.js").read_text())
    assert {"page.js", "page.css", "lib/transformers.min.js"} <= {*named}
    assert [name for name in named if not (folder / name).is_file()] == []
    assert not re.search(r"https?://", page + (folder / "page.js").read_text())
