"""last_config.json: what was chosen comes back, and no file, however broken, ends a session without
a clear message.
"""

import json
from pathlib import Path

import pytest

from lightlm.errors import InputError
from lightlm.params import load_params
from lightlm_flows.cli.saved_configuration import (
    CONFIGURATION,
    find_configuration,
    load_configuration,
    save_configuration,
)

CHOICES = {
    "budget.hours": 1.5,
    "budget.planner": "manual",
    "dataset.source": "my-notes/",
    "dataset.config": None,
    "model.num_layers": 12,
    "model.flash_attention": True,
}


def test_what_was_saved_is_loaded_again(tmp_path: Path) -> None:
    path = tmp_path / "some" / CONFIGURATION
    save_configuration(path, CHOICES, "12 layers")
    loaded = load_configuration(path)
    assert load_params(overrides=loaded.choices) == load_params(overrides=CHOICES)
    assert loaded.notices == []
    assert list(path.parent.iterdir()) == [path], "nothing is left beside it"


def test_the_file_is_readable_and_holds_only_what_was_chosen(tmp_path: Path) -> None:
    path = tmp_path / CONFIGURATION
    save_configuration(
        path, CHOICES | {"model.num_experts": load_params().model.num_experts}, "12 layers"
    )
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["schema"] == 1
    assert content["params"]["model"] == {"num_layers": 12, "flash_attention": True}
    assert path.read_text(encoding="utf-8").count("\n") > 10


def test_an_older_file_gives_what_is_known_and_says_what_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / CONFIGURATION
    path.write_text(
        '{"num_layers": 6, "hours": 2, "n_head": 12, "model": {"context_length": -4}}',
        encoding="utf-8",
    )
    loaded = load_configuration(path)
    assert loaded.choices == {"model.num_layers": 6, "budget.hours": 2}
    told = " ".join(loaded.notices)
    assert "has no schema 1" in told
    assert "left out n_head=12" in told
    assert "left out model.context_length=-4" in told


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"schema": 1, "params": {"model"', "damaged, it is no JSON"),
        (b"", "damaged, it is no JSON"),
        (b"\xff\xfe\x00", "damaged, it is no JSON"),
        (b"[1, 2]", "no JSON object"),
        (b'{"schema": 99, "params": {}}', "newer LightLM"),
        (b'{"schema": "one", "params": {}}', "newer LightLM"),
        (b'{"schema": 1, "params": {}}', "no value that can be used"),
        (
            b'{"schema": 1, "params": {"model": {"model_dim": 100, "num_heads": 3}}}',
            "exclude each other",
        ),
        (b"[" * 100_000, "damaged, it is no JSON"),
        (b" " * 1_000_001, "more than 1,000,000 bytes"),
    ],
    ids=range(10),
)
def test_a_file_that_cannot_be_used_says_why(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / CONFIGURATION
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        load_configuration(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_say_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no"):
        load_configuration(tmp_path / "nowhere.json")
    with pytest.raises(InputError, match="cannot read"):
        load_configuration(tmp_path)


def test_the_file_of_this_folder_is_offered_only_where_the_home_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.setenv("LIGHTLM_HOME", str(home))
    monkeypatch.chdir(here)
    assert find_configuration(home) == home / CONFIGURATION
    (here / CONFIGURATION).write_text("{}", encoding="utf-8")
    assert find_configuration(home) == here / CONFIGURATION
    save_configuration(home / CONFIGURATION, CHOICES, "")
    assert find_configuration(home) == home / CONFIGURATION
