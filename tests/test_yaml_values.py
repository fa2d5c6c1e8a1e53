"""Values after --set and in YAML: text stays text where a param is a text."""

from typing import Any

import pytest

from lightlm.params import is_text, load_params
from lightlm_flows.cli.options import collect_overrides


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("dataset.config", "2018", "2018"),
        ("dataset.config", "1.10", "1.10"),
        ("dataset.config", "true", "true"),
        ("dataset.config", "2018-01-02", "2018-01-02"),
        ("dataset.config", "1_000", "1_000"),
        ("dataset.config", "null", None),
        ("dataset.config", '"null"', "null"),
        ("dataset.text_column", "1", "1"),
        ("tracking.model_name", "7", "7"),
        ("training.compile", '"off"', "off"),
        ("training.device", "cpu", "cpu"),
        ("dataset.config", 2018, "2018"),
        ("dataset.config", True, "true"),
        ("training.seed", "7", 7),
        ("training.devices", "2", 2),
        ("training.devices", "auto", "auto"),
    ],
)
def test_what_looks_like_a_number_is_text_where_a_text_is_wanted(
    name: str, typed: Any, value: Any
) -> None:
    assert load_params(overrides={name: typed}).flatten()[name] == value


@pytest.mark.parametrize(
    "typed", ["2018", "a: b", "#1", "[x", "null", "'x", "plain", "caf\u00e9", "!!int x", ""]
)
def test_an_option_of_text_is_taken_as_it_was_typed(typed: str) -> None:
    overrides = collect_overrides(None, typed, None, None)
    assert load_params(overrides=overrides).dataset.config == typed


def test_only_params_of_text_alone_are_text() -> None:
    assert is_text("dataset.source")
    assert is_text("tracking.promote")
    assert not is_text("training.devices")
    assert not is_text("budget.hours")
    assert not is_text("no.such")
