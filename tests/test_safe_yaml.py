"""Tests of YAML: what it reads, and that nothing malformed is more than one short error,
at once.
"""

import time
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlm.errors import ParameterError
from lightlm.params import is_text, load_params, quote
from lightlm.safe_yaml import read_yaml
from lightlm_flows.cli.options import collect_overrides

NINES = ", ".join(f"&b{level} [{', '.join(['*b' + str(level - 1)] * 9)}]" for level in range(1, 10))
BOMB = f"[&b0 [x, x, x, x, x, x, x, x, x], {NINES}]"

MALFORMED = [
    "!!timestamp "
    "x", "!!int x", "!!int ''", "!!float x", "!!bool x", "!!binary x", "!!omap [a]", "!!pairs [1]",
    "!!python/object/apply:os.getcwd []", "*a", "'", "[", "{[a]: b}", "\x00", "\ud800", "0x_",
    "[" * 20_000, "[" * 20_000 + "]" * 20_000, "{a: " * 5_000, "- " * 20_000, "? " * 20_000, "9" * 6_000, BOMB,
    "x" * 2_000_000,
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-13-45", "2026-13-45"),
        ("2026-01-02", "2026-01-02"),
        ("1:30", "1:30"),
        ("017", "017"),
        ("=", "="),
        ("<<", "<<"),
        ("off", "off"),
        ("1_000", 1000),
        ("-3", -3),
        ("0x10", 16),
        ("1e-3", 0.001),
        ("1.5", 1.5),
        (".5", 0.5),
        ("2.", 2.0),
        ("-.inf", -float("inf")),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("[1, a, {b: c}]", [1, "a", {"b": "c"}]),
    ],
)
def test_values_are_read_as_yaml_1_2_has_them_and_a_date_is_text(text: str, value: object) -> None:
    assert read_yaml(text) == value


@pytest.mark.parametrize("text", MALFORMED, ids=lambda text: ascii(text[:20]))
def test_a_malformed_value_is_one_short_line_within_a_second(text: str) -> None:
    began = time.perf_counter()
    with pytest.raises(yaml.YAMLError):
        read_yaml(text)
    with pytest.raises(
        ParameterError, match=r"^tracking\.experiment=.* is not a value that YAML can read: "
    ) as caught:
        load_params(overrides={"tracking.experiment": text})
    assert time.perf_counter() - began < 1.0
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@given(st.text(alphabet="![]{}*&:-?,'\"\n 0xe._9a~<>|%@#=", max_size=40))
@settings(max_examples=200, deadline=None)
def test_no_text_at_all_is_more_than_an_error_of_yaml(text: str) -> None:
    try:
        read_yaml(text)
    except yaml.YAMLError as error:
        assert str(error)


def test_a_value_that_is_quoted_is_cut_before_it_is_written_out() -> None:
    nested: list = ["x"] * 9
    for _ in range(12):
        nested = [nested] * 9
    began = time.perf_counter()
    quoted = [quote(value) for value in (nested, 10**6000, "x" * 10_000_000, {"a": nested})]
    assert time.perf_counter() - began < 0.5
    assert all(len(text) <= 80 and "\n" not in text for text in quoted)
    assert quote([1, "a"]) == "[1, 'a']"


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
