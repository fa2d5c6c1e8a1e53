"""Which files a name stands for: kinds, splits, links, archives, patterns; what is not read is
listed with a reason.
"""

import json
import os
import socket
import zipfile
from pathlib import Path

import pytest

from lightlm.data.files.inputs import LISTED, LeftOut, find_inputs, shorten, split_of
from lightlm.data.files.local_path import suggest_names
from lightlm.errors import DatasetError


def names(path: Path) -> list[str]:
    return [file.name for file in find_inputs(path).files]


def reasons(path: Path) -> dict[str, str]:
    return dict(find_inputs(path).left_out)


def test_words_in_the_names_of_texts_are_no_splits() -> None:
    for name in (
        "dev notes.md",
        "driving test.md",
        "Val Gardena trip.md",
        "train journey.md",
        "tests/a.txt",
        "a/mytest.txt",
    ):
        assert split_of(name, is_table=False) == "train", name


@pytest.mark.parametrize(
    ("name", "is_table", "split"),
    [
        ("valid.txt", False, "validation"),
        ("dev.txt", False, "validation"),
        ("Test.md", False, "test"),
        ("train-00000-of-00002.txt", False, "train"),
        ("validation_3.txt", False, "validation"),
        ("val/chapter one.txt", False, "validation"),
        ("deep/TEST/a.txt", False, "test"),
        ("my-valid.jsonl", True, "validation"),
        ("wiki.test.parquet", True, "test"),
        ("data/test-00000-of-00001.parquet", True, "test"),
        ("contest.csv", True, "train"),
        ("latest_devices.csv", True, "train"),
    ],
)
def test_a_split_is_a_name_of_its_own_and_in_tables_a_word_between_delimiters(
    name: str, is_table: bool, split: str
) -> None:
    assert split_of(name, is_table=is_table) == split


def test_what_is_hidden_linked_empty_or_of_no_known_format_is_listed_with_its_reason(
    tmp_path: Path,
) -> None:
    outside = tmp_path / "secret.txt"
    outside.write_text("root:x:0:0")
    folder = tmp_path / "notes"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "config.txt").write_text("hidden")
    (folder / "a.md").write_text("a note")
    (folder / "b.md").symlink_to(folder / "a.md")
    (folder / "passwd.txt").symlink_to(outside)
    (folder / "etc").symlink_to("/etc")
    (folder / "gone.txt").symlink_to(tmp_path / "nowhere")
    (folder / ".hidden.md").write_text("hidden")
    (folder / "empty.md").touch()
    (folder / "photo.png").write_bytes(b"\x89PNG")
    os.mkfifo(folder / "pipe.txt")

    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(folder)
        try:
            listener.bind("sock.txt")
        finally:
            os.chdir(here)

    assert names(folder) == ["a.md"]
    assert reasons(folder) == {
        ".git/": "hidden",
        ".hidden.md": "hidden",
        "b.md": "a link to what is read already",
        "passwd.txt": "a link out of the folder",
        "etc/": "a link out of the folder",
        "gone.txt": "a link to nothing",
        "empty.md": "empty",
        "photo.png": "no known format of text (.png)",
        "pipe.txt": "a pipe, socket or device",
        "sock.txt": "a pipe, socket or device",
    }


def test_a_folder_of_links_alone_gives_no_text(tmp_path: Path) -> None:
    (tmp_path / "env.txt").symlink_to("/proc/self/environ")
    with pytest.raises(DatasetError, match=r"1 a link out of the folder, as env\.txt"):
        find_inputs(tmp_path)


def test_a_named_file_of_any_suffix_is_taken_and_a_folder_takes_known_ones(tmp_path: Path) -> None:
    for name in ("novel", "novel.story", "novel.log"):
        (tmp_path / name).write_text("text")
        assert names(tmp_path / name) == [name]
    assert names(tmp_path) == ["novel.log"]


def test_a_pattern_takes_what_it_matches_and_source_code_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "src" / "deep").mkdir(parents=True)
    for name in ("src/a.py", "src/deep/b.py", "src/c.txt"):
        (tmp_path / name).write_text("print()")
    monkeypatch.chdir(tmp_path)
    assert names(Path("src/**/*.py")) == ["a.py", "deep/b.py"]
    assert names(tmp_path / "src" / "*.py") == ["a.py"]
    with pytest.raises(
        DatasetError, match=r"no file matches src/\*\.rs; put the pattern in quotes"
    ):
        find_inputs(Path("src/*.rs"))


def test_files_about_the_data_are_left_out_unless_they_are_all_there_is(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("about")
    assert names(tmp_path) == ["README.md"]
    (tmp_path / "data.jsonl").write_text(json.dumps({"text": "a"}))
    assert names(tmp_path) == ["data.jsonl"]
    assert reasons(tmp_path) == {"README.md": "about the data, by its name"}


def test_members_of_an_archive_are_inputs_of_their_own(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "notes.zip", "w") as archive:
        archive.writestr("one.txt", "first")
        archive.writestr("test/two.md", "second")
        archive.writestr("photo.png", "third")
    found = find_inputs(tmp_path / "notes.zip")
    assert [(file.name, file.split, file.open().read()) for file in found.files] == [
        ("notes.zip/one.txt", "train", b"first"),
        ("notes.zip/test/two.md", "test", b"second"),
    ]
    assert found.left_out == [LeftOut("notes.zip/photo.png", "no known format of text (.png)")]


def test_an_empty_folder_and_a_device_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="empty folder"):
        find_inputs(tmp_path)
    with pytest.raises(DatasetError, match="pipe or a device"):
        find_inputs(Path("/dev/null"))


def test_the_nearest_names_are_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "novel.txt").touch()
    monkeypatch.chdir(tmp_path)
    assert suggest_names(Path("notez")) == "did you mean notes?"
    assert suggest_names(Path("novel.markdown")) == "did you mean novel.txt?"
    assert suggest_names(Path("nothing/like/it")) == ""


def test_many_files_left_out_for_one_reason_are_a_number() -> None:
    short = shorten([LeftOut(f"{index}.png", "hidden") for index in range(LISTED + 5)])
    assert len(short) == LISTED + 1
    assert short[-1] == LeftOut("... and 5 more", "hidden")


def test_a_pattern_follows_no_link_out_of_its_folder_and_none_in_circles(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    folder = tmp_path / "src" / "deep"
    for place in (outside, folder):
        place.mkdir(parents=True)
        (place / "a.py").write_text("x = 1\n")

    (tmp_path / "src" / "out").symlink_to(outside)
    for number in range(5):
        (tmp_path / "src" / f"loop{number}").symlink_to(tmp_path / "src")
    assert names(tmp_path / "src/**/*.py") == ["deep/a.py"]
    assert names(tmp_path / "src/**") == ["deep/a.py"]
    found = find_inputs(tmp_path / "src/*/*.py")
    assert [file.path for file in found.files] == [folder / "a.py"]
    assert ("out/a.py", "a link out of src/") in found.left_out
