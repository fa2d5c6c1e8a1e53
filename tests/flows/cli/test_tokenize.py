"""Tests of the command `tokenize`: what it refuses at once, and where it writes."""

from pathlib import Path

import pytest

from lightlm.errors import ParameterError
from lightlm_flows.cli.commands.tokenize import name_url, read_machine


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/", "-1/2"])
def test_a_machine_is_one_of_several(text: str) -> None:
    assert read_machine("1/1") == (0, 1) and read_machine("4/4") == (3, 4)
    with pytest.raises(ParameterError, match="1/4 to 4/4"):
        read_machine(text)


def test_a_corpus_goes_to_a_folder_or_a_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert name_url("corpus") == (tmp_path / "corpus").as_uri()
    assert name_url("s3://bucket/corpus/") == "s3://bucket/corpus"


@pytest.mark.parametrize("out", ["https://x/y", "s3://name:a-secret@bucket/x", "s3://a b/c"])
def test_a_place_that_is_none_is_refused_without_its_key(out: str) -> None:
    with pytest.raises(ParameterError, match="give a URL") as refused:
        name_url(out)
    assert "a-secret" not in str(refused.value)
