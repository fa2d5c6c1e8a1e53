"""Tests of params: one model, one message for each mistake, nothing but ParameterError."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlm.errors import ParameterError
from lightlm.params import (
    PARAMS_FOLDER,
    Params,
    build_params,
    list_presets,
    load_params,
    name_texts,
    parse_assignments,
)

ABSURD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=2),
    st.sampled_from(
        [
            "nan",
            "inf",
            "-1",
            "0",
            "1e9",
            "\u0661",
            "!!python/object:os.system",
            "{a: 1}",
            "[",
            "\x00",
            "",
        ]
    ),
)
NAMES = st.sampled_from(
    [*load_params().flatten(), "model", "budget", "", ".", "a.b", "model.", "model.layers"]
)


def test_base_holds_every_value() -> None:
    assert load_params().budget.hours == 0.02
    assert set(yaml.safe_load((PARAMS_FOLDER / "base.yaml").read_text())) == set(
        Params.model_fields
    )


@pytest.mark.parametrize("preset", list_presets())
def test_every_preset_is_valid(preset: str) -> None:
    assert isinstance(load_params(preset), Params)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("budget.hours", 0, "budget.hours is 0; input should be greater than 0"),
        ("budget.hours", "-1", "budget.hours is -1; input should be greater than 0"),
        ("budget.hours", ".nan", "budget.hours is nan; input should be a finite number"),
        ("budget.hours", math.inf, "budget.hours is inf; input should be a finite number"),
        (
            "budget.hours",
            1e9,
            "budget.hours is 1000000000.0; input should be less than or equal to 8760",
        ),
        (
            "budget.hours",
            "soon",
            "budget.hours: hours are a number or a time with units, as 0.5, 30m, 1h30 or 90s",
        ),
        (
            "model.num_layers",
            0,
            "model.num_layers is 0; input should be greater than or equal to 1",
        ),
        (
            "tokenizer.vocab_size",
            0,
            "tokenizer.vocab_size is 0; input should be greater than or equal to 257",
        ),
        (
            "training.optimizer",
            "sgd",
            "training.optimizer is 'sgd'; input should be 'muon' or 'adamw'",
        ),
        (
            "generation.temperature",
            -0.1,
            "generation.temperature is -0.1; input should be greater than or equal to 0",
        ),
        ("tracking.model_name", "../x", "tracking.model_name is '../x'; give letters, digits,"),
        ("training.device", "gpu", "training.device is 'gpu'; give auto, cpu, mps, cuda or cuda:1"),
        ("store.shared", "s3:x", "store.shared is 's3:x'; give a URL such as s3://bucket/folder"),
        (
            "model.num_layer",
            3,
            "unknown parameter 'model.num_layer'; did you mean model.num_layers",
        ),
        ("hours", 3, "unknown parameter 'hours'; did you mean budget.hours"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_wanted(name: str, value: Any, message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        load_params(overrides={name: value})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"model_dim": 100, "num_heads": 3}, "model_dim 100 is not a multiple of num_heads 3"),
        ({"model_dim": 10, "num_heads": 2}, "= 5 is odd"),
        ({"num_heads": 6, "num_kv_heads": 4}, "num_heads 6 is not a multiple of num_kv_heads 4"),
        (
            {"num_experts": 4, "num_active_experts": 5},
            "num_active_experts 5 is more than num_experts 4",
        ),
    ],
)
def test_dimensions_that_do_not_fit_together_are_refused(
    shape: dict[str, int], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        load_params(overrides={f"model.{name}": value for name, value in shape.items()})


@given(name=NAMES, value=ABSURD)
@settings(max_examples=400, deadline=None)
def test_absurd_values_give_params_or_one_clear_error(name: str, value: Any) -> None:
    try:
        assert isinstance(load_params(overrides={name: value}), Params)
    except ParameterError as error:
        assert str(error)
        assert len(str(error)) < 2000


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(ParameterError, match=r"budget\.hours is -1.*model\.num_layers is 0"):
        load_params(overrides={"budget.hours": -1, "model.num_layers": 0})


def test_naming_another_data_set_clears_what_belongs_to_the_first() -> None:
    assert load_params().dataset.config == "wikitext-2-v1"
    assert load_params(dataset="notes.txt").dataset.config is None
    assert load_params(dataset="notes.txt", overrides={"dataset.config": "x"}).dataset.config == "x"


def test_hours_and_overrides_go_over_the_preset() -> None:
    params = load_params("smoke", {"training.seed": "7"}, hours=0.5)
    assert (params.budget.hours, params.budget.planner, params.training.seed) == (0.5, "tiers", 7)


def test_a_preset_is_also_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("model: {num_layers: 3}\n")
    assert load_params(str(tmp_path / "mine.yaml")).model.num_layers == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"model: {num_layer: 3}",
            "mine.yaml: unknown parameter 'model.num_layer'; did you mean model.num_layers",
        ),
        (b"model: 3", "mine.yaml: model must hold keys, got 3"),
        (b"- 3", "mine.yaml holds no sections; compare params/base.yaml"),
        (b"model: {", "mine.yaml is not valid YAML"),
        (b"model: {num_layers: '\xff'}", "mine.yaml is no UTF-8"),
        (b"#" * 200_000, "mine.yaml is larger than 100,000 bytes"),
        (
            None,
            "mine.yaml cannot be read .No such file or directory.; wanted a YAML file, or one of "
            "base, ",
        ),
    ],
)
def test_a_wrong_file_of_ones_own_is_refused_by_its_name(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(ParameterError, match=message):
        load_params(str(tmp_path / "mine.yaml"))


def test_a_file_that_is_named_without_its_ending_is_suggested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").touch()
    with pytest.raises(
        ParameterError, match=r"unknown preset 'mine'; for the file here give --preset mine\.yaml"
    ):
        load_params("mine")


def test_an_unknown_preset_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ParameterError, match="unknown preset 'smok'; did you mean smoke"):
        load_params("smok")
    with pytest.raises(ParameterError, match="unknown preset"):
        load_params("../../etc/passwd")


def test_params_are_frozen_and_build_again_from_their_values() -> None:
    params = load_params(overrides={"model.num_layers": 3})
    assert build_params(params.model_dump()) == params
    with pytest.raises(Exception, match="frozen"):
        params.budget.hours = 1.0  # pyright: ignore[reportAttributeAccessIssue]


def test_assignments_are_split_at_the_first_equals_sign() -> None:
    assert parse_assignments(["a.b=c=d", " x.y =1"]) == {"a.b": "c=d", "x.y": "1"}
    for wrong in ("novalue", "=1", ""):
        with pytest.raises(ParameterError, match=r"wants section\.key=value"):
            parse_assignments([wrong])


@pytest.mark.parametrize(("written", "read"), [("off", "off"), ("on", "on"), ("auto", "auto")])
def test_on_and_off_are_words(written: str, read: str) -> None:
    assert load_params(overrides={"training.compile": written}).training.compile == read
    assert load_params(overrides={"model.flash_attention": "true"}).model.flash_attention


def test_python_objects_in_yaml_are_refused(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(ParameterError):
        load_params(
            overrides={"dataset.source": f"!!python/object/apply:os.system ['touch {canary}']"}
        )
    assert not canary.exists()


def test_further_texts_are_named_in_short_or_with_their_own_params() -> None:
    first, others = name_texts(
        ["notes/", "Salesforce/wikitext:0.3", "letters.txt:once", "OWNER/NAME"]
    )
    params = load_params(dataset=first, overrides=others).dataset
    assert [(one.source, one.weight) for one in params.others] == [
        ("Salesforce/wikitext", 0.3),
        ("letters.txt", "once"),
        ("OWNER/NAME", "auto"),
    ]
    wikitext, letters, _ = params.list_others()
    assert (wikitext.config, letters.config) == ("wikitext-2-v1", None)
    assert (letters.source, letters.offline, letters.others) == ("letters.txt", "no-fallback", ())

    own = {"source": "letters.csv", "text_column": "body", "weight": 0.5}
    (other,) = load_params(overrides={"dataset.others": [own]}).dataset.list_others()
    assert (other.source, other.text_column) == ("letters.csv", "body")


def test_a_text_whose_name_ends_like_a_weight_is_a_text(tmp_path: Path) -> None:
    path = tmp_path / "part:0.5"
    path.write_text("x")
    assert name_texts([str(path)]) == (str(path), {})
    assert name_texts(["C:/notes"])[0] == "C:/notes"
    assert name_texts(None) == (None, {})


@pytest.mark.parametrize(
    ("others", "words"),
    [
        (["a:1.5"], "the weight 1.5 is no share of the training; give a number between 0 and 1"),
        ([{"source": "a", "weight": "half"}], "the weight 'half' is no share"),
        (["a:0.7", "b:0.3"], "others take 100% of the training; leave some to Salesforce/wikitext"),
        (["a", "a:0.3"], "a is named twice"),
        ([{"weight": 0.3}], "dataset.others.0.source"),
    ],
)
def test_weights_that_mean_nothing_are_refused(others: list[object], words: str) -> None:
    with pytest.raises(ParameterError) as error:
        load_params(overrides={"dataset.others": others})
    assert words in str(error.value)


def test_naming_another_data_set_drops_the_texts_that_went_with_the_old_one(tmp_path: Path) -> None:
    preset = tmp_path / "mixed.yaml"
    preset.write_text("dataset: {source: notes, others: ['letters:0.3']}")
    assert len(load_params(str(preset)).dataset.others) == 1
    assert load_params(str(preset), dataset="novel.txt").dataset.others == ()
