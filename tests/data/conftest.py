"""Texts for the tests of the data room: made here, small, the same each time."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from lightlm.data.subset import TextSubset, materialize_subset
from lightlm.params import DatasetParams, load_params
from lightlm.store.home import find_home

WORDS = [
    "the",
    "a",
    "river",
    "old",
    "stone",
    "walks",
    "under",
    "bright",
    "morning",
    "and",
    "finds",
    "no",
    "reason",
    "to",
    "stay",
    "while",
    "rain",
    "falls",
]


def make_document(seed: int, num_words: int = 60) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(num_words)) + f" ({seed})"


@pytest.fixture
def dataset() -> Callable[..., DatasetParams]:
    def choose(path: Path | str, **values: object) -> DatasetParams:
        overrides = {f"dataset.{name}": value for name, value in values.items()}
        return load_params(dataset=str(path), overrides=overrides).dataset

    return choose


@pytest.fixture
def subset(tmp_path: Path, dataset: Callable[..., DatasetParams]) -> TextSubset:
    path = tmp_path / "stories.jsonl"
    import json

    path.write_text(
        "".join(json.dumps({"text": make_document(i)}) + "\n" for i in range(120)), encoding="utf-8"
    )
    return materialize_subset(find_home(), dataset(path))
