"""LightLM from Python: light to import, quiet, and the errors are the command line's."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

import lightlm
from lightlm.api import Model
from lightlm.errors import DatasetError, InputError, ModelVersionError, PromptError
from lightlm.tracking.registry import ModelVersion


@pytest.fixture
def model(model_folder: Path) -> Model:
    version = ModelVersion(
        name="notes",
        version="3",
        run_id="r",
        aliases=(),
        tags={},
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return Model(version, model_folder)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import lightlm, sys; print(sorted({'torch', 'mlflow', 'prefect', 'pydantic'} & "
        "set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert (ended.stdout.strip(), ended.stderr) == ("[]", "")


def test_a_model_writes_the_same_text_for_the_same_seed_at_once_and_in_pieces(model: Model) -> None:
    text = model.generate("the old", seed=3, max_new_tokens=12, temperature=1.0)
    assert text
    assert "".join(model.stream("the old", seed=3, max_new_tokens=12, temperature=1.0)) == text
    assert repr(model) == "lightlm.Model(models:/notes/3)"


def test_a_score_of_documents_is_that_of_bits_a_byte(model: Model) -> None:
    assert 0 < model.score("the old river walks under stone") < 16
    assert 0 < model.score(["the old river", "walks"]) < 16
    with pytest.raises(DatasetError, match="is empty"):
        model.score("")


def test_what_a_model_cannot_take_is_said(model: Model) -> None:
    with pytest.raises(PromptError, match="temperature is -1"):
        model.generate("the", temperature=-1)
    with pytest.raises(PromptError, match="top_q"):
        model.generate("the", top_q=1)
    for prompt in (b"the", ["the", 5]):
        with pytest.raises(PromptError, match="a prompt is int; give str"):
            model.generate(prompt)  # type: ignore[call-overload]
    with pytest.raises(PromptError, match="a prompt is list; give str"):
        list(model.stream(["the"]))  # type: ignore[arg-type]


def test_without_a_model_a_person_is_told_to_train() -> None:
    with pytest.raises(ModelVersionError, match="run `lightlm train` first"):
        lightlm.load()


def test_training_refuses_what_the_command_refuses_in_its_words() -> None:
    told: list[str] = []
    with pytest.raises(InputError, match=r"nowhere\.txt does not exist"):
        lightlm.train("nowhere.txt", 0.02, report=told.append)
    assert len(told) == 1
    with pytest.raises(InputError, match=r"unknown parameter 'model\.depth'"):
        lightlm.train("nowhere.txt", 0.02, overrides={"model.depth": 3})


def test_a_data_set_that_names_none_is_not_the_default_one() -> None:
    with pytest.raises(InputError, match="which names none"):
        lightlm.train([], 0.02)
    with pytest.raises(InputError, match="at least 1 character"):
        lightlm.train("", 0.02)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        lightlm.trian  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
