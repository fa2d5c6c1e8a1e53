"""The trie of counted grams against counting by dictionaries."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from lightlm.ngram.counts import count_grams
from lightlm.ngram.mixture import ABSENT, ORDER, Counts

VOCAB = 7


def make_text(num_tokens: int, seed: int = 0) -> np.ndarray:
    """Return tokens of which some follow others much more often."""
    random = np.random.default_rng(seed)
    steps = random.choice([1, 1, 1, 2, 5], size=num_tokens)
    return (np.cumsum(steps) % VOCAB).astype(np.uint16)


def list_grams(counts: Counts) -> list[dict[tuple[int, ...], int]]:
    """Return the grams of each length that the trie holds, with their counts."""
    found: list[dict[tuple[int, ...], int]] = [{} for _ in range(ORDER)]

    def walk(place: int, row: int, before: tuple[int, ...]) -> None:
        level = counts.levels[place]
        gram = (*before, int(level.tokens[row]))
        found[place][gram] = int(level.counts[row])
        if place + 1 < ORDER:
            for child in range(level.spans[row]):
                walk(place + 1, level.links[row] + child, gram)

    for token in range(VOCAB):
        if counts.levels[0].links[token] != ABSENT:
            walk(0, token, ())
    return found


def test_every_gram_after_one_that_was_read_twice_is_held_with_its_count() -> None:
    text = make_text(400)
    starts = range(len(text) - ORDER + 1)
    times = [Counter(tuple(text[i : i + n].tolist()) for i in starts) for n in range(1, ORDER + 1)]
    left = defaultdict(set)
    for longer in times[1:]:
        for gram in longer:
            left[gram[1:]].add(gram[0])

    held = list_grams(count_grams(text, VOCAB))
    for place, grams in enumerate(held):
        wanted = {
            gram: number if place + 1 == ORDER else max(1, len(left[gram]))
            for gram, number in times[place].items()
            if not place or times[place - 1][gram[:-1]] > 1
        }
        # The last gram of the text may end one that nothing begins.
        assert grams.keys() == wanted.keys()
        assert sum(grams[gram] != wanted[gram] for gram in wanted) <= 1


def test_a_gram_that_was_read_once_links_to_the_place_of_its_follower() -> None:
    text = make_text(60)
    counts = count_grams(text, VOCAB)
    for place, level in enumerate(counts.levels[: ORDER - 1]):
        for row in np.flatnonzero((level.spans == 0) & (level.links != ABSENT)):
            assert text[level.links[row] - 1] == level.tokens[row]
            assert place < level.links[row] <= len(text)


@pytest.mark.parametrize("num_tokens", [0, 1, 5, 6, 7])
def test_a_text_of_a_few_tokens_is_counted_as_well(num_tokens: int) -> None:
    counts = count_grams(make_text(num_tokens), VOCAB)
    assert len(counts.levels) == ORDER
    assert counts.levels[0].counts.sum() <= num_tokens


def test_discounts_grow_with_the_count_and_stay_below_it() -> None:
    discounts = count_grams(make_text(5000), VOCAB).discounts
    assert (discounts[:, 0] == 0).all()
    assert (discounts <= [0, 1, 2, 3]).all()
    assert (discounts[-1, 1:] > 0).all()
