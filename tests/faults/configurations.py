"""Absurd configurations, generated; and the four doors that a configuration comes in by."""

import copy
import json
from collections.abc import Callable
from typing import Any

import yaml
from hypothesis import strategies as st

from lightlm.budget.shapes import check_shape
from lightlm.errors import ParameterError
from lightlm.params import Params, build_params, load_params, parse_assignments
from lightlm.safe_yaml import read_yaml

BASE = load_params().model_dump()
NAMES = sorted(load_params().flatten())

NUMBERS = st.one_of(
    st.integers(-3, 4096),
    st.sampled_from([2**31, 2**63, 10**30, -(10**9), 0.5, 1e-9, -0.0, 1e308]),
    st.floats(allow_nan=False, allow_infinity=False),
)
TEXTS = st.sampled_from(
    [
        "auto",
        "on",
        "off",
        "cpu",
        "cuda",
        "tiers",
        "manual",
        "muon",
        "never",
        "../x",
        "a b",
        "models:/x",
        "python-docs",
    ]
)
VALUES = st.one_of(
    st.none(), st.booleans(), NUMBERS, TEXTS, st.lists(st.integers(0, 3), max_size=2)
)
CONFIGURATIONS = st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1, max_size=5)


def judge(load: Callable[[], Params]) -> str:
    """Return "fine", or the message of the refusal; any other error goes through."""
    try:
        check_shape(load())
    except ParameterError as error:
        return str(error)
    return "fine"


def enter_python(overrides: dict[str, Any]) -> Params:
    """Come in as a caller of load_params."""
    return load_params(overrides=overrides)


def enter_command_line(overrides: dict[str, Any]) -> Params:
    """Come in as --set, with each value as a person writes it."""
    words = [f"{name}={json.dumps(value)}" for name, value in overrides.items()]
    return load_params(overrides=parse_assignments(words))


def enter_prefect(overrides: dict[str, Any]) -> Params:
    """Come in as a flow run's parameters, which are JSON."""
    return load_params(overrides=json.loads(json.dumps(overrides)))


def enter_yaml(overrides: dict[str, Any]) -> Params:
    """Come in as a file of values."""
    values = copy.deepcopy(BASE)
    for name, value in overrides.items():
        section, _, key = name.partition(".")
        values[section][key] = value
    return build_params(
        read_yaml(yaml.dump(values, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper)))
    )


DOORS = (enter_python, enter_command_line, enter_prefect, enter_yaml)
