"""Tests of the small files of the home: whatever damage they have, their readers take them for
absent and go on.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from lightlm.budget.compiled import CompiledShapes
from lightlm.budget.history import History
from lightlm.budget.reserve import ClosingTimes, FixedTimes
from lightlm.errors import InputError
from lightlm.model.config import ModelConfig
from lightlm.runs.finished import read_finished_run
from lightlm.store.remembered import Remembered, parse_json, read_json
from lightlm.tracking.record import JOURNAL
from lightlm.tracking.registry import ModelVersion
from lightlm.tracking.resolved import FILE, read_state, recall
from lightlm.tracking.shipped import STATE, read_shipped
from lightlm.training.config import TrainerConfig
from lightlm_flows.cli.saved_configuration import load_configuration
from lightlm_flows.service.lifecycle import read_service

MODEL = ModelConfig(
    vocab_size=300,
    num_layers=2,
    model_dim=64,
    num_heads=1,
    num_kv_heads=1,
    head_dim=64,
    ffn_dim=128,
    context_length=32,
)
TRAINER = TrainerConfig(batch_tokens=64, micro_batch_size=2)
VERSION = ModelVersion.model_validate(
    {
        "name": "lightlm",
        "version": "3",
        "run_id": "r",
        "aliases": [],
        "tags": {},
        "created_at": "2026-01-01T00:00:00Z",
    }
)
RUN = {
    "run": "a", "ended_at": 1.0, "hardware_id": "m", "hours": 0.1, "dataset": "d", "text_sha256": "t", "shape": "s",
    "matrix_parameters": 1000, "seen_bytes": 1e6, "unique_bytes": 1000000, "hardness": 1.0, "training_seconds": 60.0,
    "planned_tokens_per_second": 100.0, "tokens_per_second": 90.0, "predicted_bits_per_byte": 2.0,
    "predicted_low": 1.9, "predicted_high": 2.1, "bits_per_byte": 2.05, "is_whole": True,
}  # fmt: skip

DEEP = "[" * 100_000
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
        st.sampled_from([0, 0.0, -1, 10**400, 1e308, float("nan"), float("inf"), "0", {}, []]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def fill_resolved(home: Path) -> object:
    (home / "mlflow.db").write_bytes(b"a database" * 20)
    os.utime(home / "mlflow.db", (1_700_000_000, 1_700_000_000))
    return {"database": read_state(home), "versions": {"lightlm": VERSION.model_dump(mode="json")}}


def fill_shipped(home: Path) -> object:
    (home / JOURNAL).write_bytes(b"a line\n" * 3)
    version = VERSION.model_dump(mode="json")
    return {"cursor": 14, "run_id": "a1", "version": version, "is_finished": True, "refused": None}


def read_shipped_of(home: Path) -> object:
    state = read_shipped(home)
    assert state.cursor in (0, 7, 14, 21)
    return state


def read_or_refuse(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def call(path: Path) -> object:
        try:
            return read(path)
        except InputError as error:
            assert "\n" not in str(error)
            assert len(str(error)) < 2_000
            return None

    return call


def correct(home: Path) -> object:
    found = History(home).correct("m", "t")
    assert 0.001 < found.loss < 1000
    assert 0.5 <= found.speed <= 1.2
    return found


FILES: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "closing_seconds.json": (lambda _: [1.5, 2.0], lambda home: ClosingTimes(home).estimate(36.0)),
    "fixed_seconds.json": (lambda _: [4.0, 5.0, 6.0], lambda home: FixedTimes(home).find_least()),
    "cache/compiled.json": (
        lambda _: ["0123456789abcdef"],
        lambda home: CompiledShapes(home).knows(MODEL, TRAINER),
    ),
    "finished_runs_mlflow.json": (lambda _: [RUN, RUN | {"run": "b"}, RUN | {"run": "c"}], correct),
    FILE: (
        fill_resolved,
        lambda home: recall(home, "lightlm", TypeAdapter(ModelVersion), lambda: VERSION),
    ),
    STATE: (fill_shipped, read_shipped_of),
    "last_config.json": (
        lambda _: {
            "kind": "lightlm configuration",
            "schema": 1,
            "params": {"model": {"num_layers": 4}},
        },
        read_or_refuse(lambda home: load_configuration(home / "last_config.json")),
    ),
    "summary.json": (lambda _: {"run_id": "a"}, read_or_refuse(read_finished_run)),
    "service/service.json": (lambda _: {"prefect_port": 1, "mlflow_port": 2}, read_service),
}
"""Each small file of the home: what fills it, and who reads it."""


def mutate(content: Any, draw: st.DataObject) -> Any:
    """Replace one value anywhere inside."""
    if isinstance(content, (dict, list)) and content and draw.draw(st.integers(0, 3)):
        keys = list(content) if isinstance(content, dict) else range(len(content))
        key = draw.draw(st.sampled_from(list(keys)))
        copy = dict(content) if isinstance(content, dict) else list(content)
        copy[key] = mutate(content[key], draw)  # pyright: ignore[reportArgumentType, reportCallIssue]
        return copy
    return draw.draw(VALUES)


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_damaged_small_file_ends_nothing(home: Path, name: str, data: st.DataObject) -> None:
    fill, read = FILES[name]
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    intact = json.dumps(fill(home))
    kind = data.draw(st.sampled_from(["value", "cut", "bytes", "deep", "digits"]))

    if kind == "value":
        content = json.dumps(mutate(json.loads(intact), data)).encode()
    elif kind == "cut":
        content = intact.encode()[: data.draw(st.integers(0, len(intact)))]
    elif kind == "bytes":
        at = data.draw(st.integers(0, len(intact) - 1))
        content = (
            intact[:at].encode() + data.draw(st.binary(max_size=4)) + intact[at + 1 :].encode()
        )
    else:
        content = (DEEP if kind == "deep" else "9" * 6000).encode()

    path.write_bytes(content)
    read(home)
    path.write_text(intact)
    read(home)


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_the_place_of_a_small_file_ends_nothing(home: Path, name: str) -> None:
    FILES[name][0](home)
    (home / name).mkdir(parents=True)
    FILES[name][1](home)


@pytest.mark.parametrize(
    "text", ["", "{", "NaN", "[Infinity]", DEEP, '{"a":' * 50_000, "9" * 6000, "\ud800"]
)
def test_what_is_no_json_has_no_value(tmp_path: Path, text: str) -> None:
    assert parse_json(text) is None
    (tmp_path / "file").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert read_json(tmp_path / "file") is None


def test_the_last_values_are_remembered_and_those_of_a_set_once(tmp_path: Path) -> None:
    some = Remembered(tmp_path / "some", TypeAdapter(int), 3)
    for value in (1, 2, 2, 3):
        some.record(value)
    assert some.read() == [2, 2, 3]
    once = Remembered(tmp_path / "once", TypeAdapter(int), 3, is_set=True)
    for value in (1, 2, 1, 3):
        once.record(value)
    assert once.read() == [2, 1, 3]
    (tmp_path / "once").write_text('[1, "x", null, 2]')
    assert once.read() == [1, 2], "what is damaged among them is left out"
