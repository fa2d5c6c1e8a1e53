"""Tests of LIGHTLM_HOME."""

import os
import tempfile
from pathlib import Path

import pytest

from lightlm.errors import StoreError
from lightlm.store.home import find_home, name_home, provide_temporary_folder


def test_home_is_the_folder_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTLM_HOME", str(tmp_path / "a" / "b"))
    assert find_home() == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()


def test_home_is_the_users_data_folder_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LIGHTLM_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert find_home().is_relative_to(tmp_path)
    assert "lightlm" in find_home().name


def test_a_home_that_is_a_file_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LIGHTLM_HOME", str(tmp_path / "file"))
    with pytest.raises(StoreError, match="LIGHTLM_HOME=/path"):
        find_home()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_home_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    monkeypatch.setenv("LIGHTLM_HOME", str(tmp_path / "closed"))
    with pytest.raises(StoreError, match="not writable"):
        find_home()
    assert find_home(only_to_read=True) == tmp_path / "closed"


def test_a_new_home_is_private_and_its_default_is_called_lightlm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTLM_HOME", str(tmp_path / "new"))
    assert os.name == "nt" or find_home().stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("LIGHTLM_HOME", " ")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert os.name != "posix" or name_home().name == "lightlm"


def test_a_home_of_a_user_who_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTLM_HOME", "~nobody-of-this-name/models")
    with pytest.raises(
        StoreError, match=r"LIGHTLM_HOME=~nobody-of-this-name/models names no folder .*=/path"
    ):
        name_home()


def test_without_a_writable_temporary_folder_the_home_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTLM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(
        tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "missing"), str(Path.cwd())]
    )
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    provide_temporary_folder()
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(tmp_path / "home" / "tmp")
    with tempfile.TemporaryFile() as file:
        file.write(b"x")


def test_a_temporary_folder_that_is_there_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTLM_HOME", str(tmp_path / "not made"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    provide_temporary_folder()
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(tmp_path)
    assert not (tmp_path / "not made").exists()
