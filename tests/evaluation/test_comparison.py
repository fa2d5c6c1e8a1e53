"""Tests of the gate: what a paired bootstrap over documents says of two models."""

import random

import pytest

from lightlm.evaluation import comparison as gate
from lightlm.evaluation.comparison import FEWEST_DOCUMENTS, MOST_GROUPS, Comparison
from lightlm.evaluation.score import DocumentScores

CHOOSE = random.Random(7)
SIZES = [CHOOSE.randrange(200, 4000) for _ in range(300)]
DIFFICULTY = [CHOOSE.gauss(1.1, 0.3) for _ in SIZES]


def scores(factor: float, noise: float = 0.01, seed: int = 0, count: int = 300) -> DocumentScores:
    """Return the nats of a model `factor` times as bad as the first on documents of very different
    difficulty.
    """
    choose = random.Random(seed)
    nats = [
        size * difficulty * (factor + choose.gauss(0, noise))
        for size, difficulty in zip(SIZES, DIFFICULTY, strict=True)
    ]
    return DocumentScores(nats=nats[:count], num_bytes=SIZES[:count])


def compare(champion: str, old: DocumentScores, new: DocumentScores, seed: int = 0) -> Comparison:
    """Return the comparison on all documents."""
    found = gate.compare(champion, old, new, seed)
    assert found is not None
    return found


def test_half_a_percent_is_seen_although_documents_differ_by_half() -> None:
    found = compare("1", scores(1.0), scores(0.995, seed=1))
    assert found.is_better
    assert found.low < found.difference < found.high < 0
    assert found.difference == pytest.approx(
        found.challenger_bits_per_byte - found.champion_bits_per_byte
    )


def test_no_difference_is_not_better_in_nineteen_of_twenty_pairs() -> None:
    found = [
        compare("1", scores(1.0, seed=2 * pair), scores(1.0, seed=2 * pair + 1))
        for pair in range(40)
    ]
    assert sum(one.is_better for one in found) <= 4
    assert sum(one.low > 0 for one in found) <= 4


def test_a_worse_model_is_not_better() -> None:
    found = compare("1", scores(1.0), scores(1.05, seed=1))
    assert not found.is_better
    assert found.low > 0


def test_the_same_seed_gives_the_same_interval_and_another_seed_almost() -> None:
    first, again, other = (
        compare("1", scores(1.0), scores(0.99, seed=1), seed) for seed in (5, 5, 6)
    )
    assert first == again
    assert first.low != other.low
    assert first.low == pytest.approx(other.low, rel=0.1)


def test_the_first_documents_that_both_have_scored_are_compared() -> None:
    found = compare("1", scores(1.0, count=200), scores(0.99, seed=1))
    assert found.num_documents == 200
    assert found.num_bytes == sum(SIZES[:200])


def test_other_documents_are_refused() -> None:
    other = DocumentScores(nats=[1.0], num_bytes=[SIZES[0] + 1])
    with pytest.raises(ValueError, match="different documents"):
        compare("1", scores(1.0), other)


def test_few_documents_decide_nothing() -> None:
    few = FEWEST_DOCUMENTS - 1
    found = compare("1", scores(1.0, count=few), scores(0.5, count=few))
    assert found.high < 0
    assert not found.is_better
    assert f"{few} documents are too few" in found.verdict


def test_very_many_documents_give_about_the_interval_that_they_give_one_by_one() -> None:
    choose = random.Random(3)
    count = 2 * MOST_GROUPS
    old = [choose.gauss(100, 10) for _ in range(count)]
    new = [one - choose.gauss(0.1, 3) for one in old]
    sizes = [100] * count
    found = compare(
        "1", DocumentScores(nats=old, num_bytes=sizes), DocumentScores(nats=new, num_bytes=sizes)
    )

    # The standard error of the mean difference, in bits a byte, times what 95 % of a normal
    # distribution spans.
    assert found.high - found.low == pytest.approx(
        2 * 1.96 * 3 / count**0.5 / 0.6931 / 100, rel=0.1
    )


def test_the_histogram_holds_every_resample_and_the_verdict_every_figure() -> None:
    found = compare("1", scores(1.0), scores(0.99, seed=1))
    assert sum(found.histogram) == 2000
    assert found.lowest < found.low < found.high < found.highest
    assert f"{found.low:+.4f} to {found.high:+.4f}" in found.verdict
    assert Comparison.model_validate_json(found.model_dump_json()) == found


def test_documents_that_the_champion_learnt_from_are_left_out() -> None:
    known = list(range(0, 300, 3))
    old = scores(1.0)
    flattered = DocumentScores(
        nats=[one * (0.1 if index in known else 1.0) for index, one in enumerate(old.nats)],
        num_bytes=old.num_bytes,
    )

    new = scores(0.99, seed=1)
    assert not compare("1", flattered, new).is_better
    found = gate.compare("1", flattered, new, leave_out=known)
    assert found is not None
    assert found.is_better
    assert (found.num_documents, found.num_left_out) == (200, 100)
    assert "100 left out" in found.verdict
    assert gate.compare("1", flattered, new, leave_out=range(300)) is None
