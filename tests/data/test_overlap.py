"""Tests of what a model has learned of a held-out text: found by document, and by line where
passages move.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lightlm.data.overlap import find_learned
from lightlm.data.subset import TextSubset, materialize_subset
from lightlm.params import DatasetParams
from lightlm.store.home import find_home
from tests.data.conftest import make_document


@pytest.fixture
def make(tmp_path: Path, dataset: Callable[..., DatasetParams]) -> Callable[..., TextSubset]:
    def choose(name: str, documents: list[str], **values: object) -> TextSubset:
        path = tmp_path / name
        if path.suffix == ".jsonl":
            path.write_text(
                "".join(json.dumps({"text": one}) + "\n" for one in documents), encoding="utf-8"
            )
        else:
            path.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
        return materialize_subset(find_home(), dataset(path, **values))

    return choose


def test_documents_that_were_trained_on_are_found(
    home: Path, make: Callable[..., TextSubset]
) -> None:
    documents = [make_document(i) for i in range(100)]
    new = make("new.jsonl", documents, validation_fraction=0.3)
    old = make("old.jsonl", documents[:50], validation_fraction=0.05)
    trained_on = set(old.read_documents("train"))
    wanted = {
        index for index, one in enumerate(new.read_documents("validation")) if one in trained_on
    }
    assert find_learned(home, new, [old.fingerprint]) == wanted
    assert wanted


def test_the_same_split_shares_nothing(home: Path, make: Callable[..., TextSubset]) -> None:
    documents = [make_document(i) for i in range(100)]
    old = make("old.jsonl", documents[:70])
    new = make("new.jsonl", documents)
    assert find_learned(home, new, [old.fingerprint, new.fingerprint]) == frozenset()


def test_passages_that_are_cut_anew_are_found_line_by_line(
    home: Path, make: Callable[..., TextSubset]
) -> None:
    lines = [make_document(i, num_words=30) for i in range(1200)]
    old = make("old.txt", lines[:300])
    new = make("new.txt", lines)
    assert old.is_running_text
    known = {
        line for document in old.read_documents("train") for line in document.splitlines() if line
    }

    for index, document in enumerate(new.read_documents("validation")):
        parts = [line for line in document.splitlines() if line]
        share = sum(len(line) for line in parts if line in known) / sum(map(len, parts))
        assert (index in find_learned(home, new, [old.fingerprint])) == (share >= 0.5)

    assert find_learned(home, new, [old.fingerprint])


def test_a_subset_that_is_not_here_any_more_is_not_looked_at(
    home: Path, make: Callable[..., TextSubset]
) -> None:
    new = make("new.jsonl", [make_document(i) for i in range(50)])
    assert find_learned(home, new, ["", "0123456789abcdef"]) == frozenset()
