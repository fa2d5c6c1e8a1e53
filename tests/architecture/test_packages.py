"""What pyproject.toml installs is what the folders hold, under names that no other project has."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
    "setuptools"
]
ROOMS = {"flows": "lightlm_flows", "lightlm": "lightlm", "params": "lightlm_params"}
"""Folder of the repository -> the name that it is imported by."""


def list_folders() -> dict[str, Path]:
    """Return {package: folder} of every folder with Python files in it."""
    folders = {path.parent for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    found = {}
    for folder in folders:
        room, *rest = folder.relative_to(ROOT).parts
        found[".".join([ROOMS[room], *rest])] = folder
    return found


def test_every_folder_with_code_is_installed() -> None:
    assert sorted(INSTALLED["packages"]) == sorted(list_folders())


def test_every_folder_is_installed_under_its_name() -> None:
    renamed = {name: folder for folder, name in ROOMS.items() if name != folder}
    assert INSTALLED["package-dir"] == renamed


def test_every_name_at_the_top_of_site_packages_is_ours() -> None:
    tops = {name.partition(".")[0] for name in INSTALLED["packages"]}
    assert [name for name in sorted(tops) if not name.startswith("lightlm")] == []


def test_every_file_that_code_reads_beside_itself_is_installed() -> None:
    data = INSTALLED["package-data"]
    forgotten = [
        path.relative_to(ROOT).as_posix()
        for package, folder in list_folders().items()
        for path in folder.iterdir()
        if path.is_file() and path.suffix not in (".py", ".pyc")
        if not any(path.match(pattern) for pattern in data.get(package, ()))
    ]
    assert forgotten == []
