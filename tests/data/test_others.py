"""Tests of the further texts of a run: nothing of the first one's held-out text is learned from
them, and what is stored of them is the same alone.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from lightlm.data.ngram import measure_worth
from lightlm.data.others import add_others, limit_bytes, name_apart
from lightlm.data.shards import tokenize_subset
from lightlm.data.subset import TextSubset, materialize_subset
from lightlm.data.tokenization.tokenizer import prepare_tokenizer
from lightlm.errors import DatasetError
from lightlm.params import DatasetParams, load_params
from tests.data.conftest import make_document

Write = Callable[[str, list[str]], Path]
OWN = [make_document(number) for number in range(200)]
GENERAL = [make_document(number) for number in range(1000, 1400)]


def test_no_two_texts_of_a_run_have_one_name() -> None:
    assert name_apart("b", ["a"]) == "b"
    assert name_apart("b", ["a", "b"]) == "b-3"
    assert name_apart("b", ["b", "b-3"]) == "b-4"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def choose(name: str, documents: list[str]) -> Path:
        path = tmp_path / name
        lines = (json.dumps({"text": document}) + "\n" for document in documents)
        path.write_text("".join(lines), encoding="utf-8")
        return path

    return choose


def read(home: Path, own: Path, *others: Path) -> TextSubset:
    """Return the first text with the others, read as a run reads them."""
    named = [str(other) for other in others]
    params = load_params(dataset=str(own), overrides={"dataset.others": named}).dataset
    return add_others(home, materialize_subset(home, params), params, [1 << 22])


def list_texts(subset: TextSubset, split: str) -> set[bytes]:
    return set(subset.read_documents("train" if split == "train" else "validation"))


def test_a_text_that_shares_nothing_is_stored_as_it_is_alone(
    home: Path, write: Write, dataset: Callable[..., DatasetParams]
) -> None:
    path = write("general.jsonl", GENERAL)
    (other,) = read(home, write("own.jsonl", OWN), path).others
    alone = materialize_subset(home, dataset(path), needed_bytes=[1 << 22])
    assert (other.subset.fingerprint, alone.reused) == (alone.fingerprint, True)
    assert other.weight == "auto"


def test_held_out_text_of_the_first_is_not_learned_from_another(home: Path, write: Write) -> None:
    own = write("own.jsonl", OWN)
    held_out = sorted(
        list_texts(materialize_subset(home, load_params(dataset=str(own)).dataset), "held out")
    )
    nearly = held_out[0].decode().replace("river", "stream", 2) + " and more"
    copies = [text.decode() for text in held_out[1:]]

    subset = read(home, own, write("general.jsonl", [*GENERAL, *copies, nearly]))
    learned = list_texts(subset.others[0].subset, "train")
    assert nearly.encode() not in learned
    assert not learned & set(held_out)
    assert len(learned) > 350, "the rest stays"
    (note,) = [one for one in subset.others[0].subset.record.notes if "named before" in one]
    assert note.startswith("left out, as a text named before it has them")


def test_what_the_first_trains_on_is_not_scored_of_another(home: Path, write: Write) -> None:
    subset = read(home, write("own.jsonl", OWN + GENERAL[:300]), write("general.jsonl", GENERAL))
    other = subset.others[0].subset
    assert not list_texts(other, "held out") & list_texts(subset, "train")
    assert not list_texts(other, "train") & list_texts(subset, "held out")
    assert list_texts(other, "held out")


def test_a_text_of_which_nothing_is_left_is_refused(home: Path, write: Write) -> None:
    own = write("own.jsonl", OWN)
    first = materialize_subset(home, load_params(dataset=str(own)).dataset)
    held_out = [text.decode() for text in first.read_documents("validation")]
    with pytest.raises(DatasetError, match="all train documents of held-out stand in a text"):
        read(home, own, write("held-out.jsonl", held_out))


def test_each_text_has_shards_of_its_own_under_one_tokenizer(home: Path, write: Write) -> None:
    general = write("general.jsonl", GENERAL)
    subset = read(home, write("own.jsonl", OWN), general)
    tokenizer = prepare_tokenizer(home, load_params().tokenizer, subset, [300])
    shards = tokenize_subset(home, subset, tokenizer)
    (other,) = shards.others
    assert (shards.vocab_size, other.shards.vocab_size) == (300, 300)
    assert shards.identity == f"{shards.fingerprint}+{other.shards.fingerprint}"

    again = read(home, write("second.jsonl", OWN[:100]), general)
    assert tokenize_subset(home, again, tokenizer).others[0].shards.reused


def test_texts_of_one_name_can_be_told_apart(home: Path, write: Write, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    subset = read(
        home,
        write("own.jsonl", OWN),
        write("more/own.jsonl", GENERAL),
        write("x.jsonl", GENERAL[::-1][:200]),
    )
    assert [one.subset.name for one in subset.others] == ["own-2", "x"]


def test_a_text_of_the_same_kind_is_worth_much_and_noise_nothing(home: Path, write: Write) -> None:
    draw = random.Random(0)
    noise = ["".join(draw.choices("qxzjkvw", k=400)) for _ in range(200)]
    own = write("own.jsonl", OWN)
    subset = read(home, own, write("general.jsonl", GENERAL), write("noise.jsonl", noise))
    same, other = (one.worth for one in subset.others)
    assert same == measure_worth(subset, subset.others[0].subset) > 0.3
    assert other < 0.05


def test_so_much_of_a_text_is_read_as_its_share_needs() -> None:
    assert limit_bytes(0.3, 1 << 24) == 1 << 23
    assert limit_bytes("auto", 1 << 24) == limit_bytes("once", 1 << 24) == 1 << 24
    assert limit_bytes(0.01, 1 << 22) == 1 << 20
