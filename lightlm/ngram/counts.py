"""Counting: the token n-grams of a text as a trie, by two sorts of numbers.

A trie holds every gram that was read twice or more, and its followers; a gram that was read once is
followed by one token only, so that it stands in the trie as a place in the text.
"""

import numpy as np

from lightlm.ngram.mixture import ABSENT, ORDER, Counts, Level

HALF = ORDER // 2
"""Tokens of half a gram: two of them are sorted as one number each."""

MOST_TOKENS = 4_000_000
"""Tokens of a text that are counted: 4 s and 1.3 GB of memory while they are, 56 MB of tables."""


LEAST_DISCOUNT = 0.05
"""Discount that a count gives up at least, so that nothing is impossible."""


def count_grams(text: np.ndarray, vocab_size: int) -> Counts:
    """Return the counts of a text, (tokens,) of unsigned ids; shorter ones than a gram count as
    unread.
    """
    num_grams = max(0, len(text) - ORDER + 1)
    order = _sort_grams(text, vocab_size, num_grams)
    is_first = np.zeros(num_grams, dtype=bool)
    is_first[:1] = True
    firsts = []
    ranks = []
    for place in range(ORDER):
        tokens = text[order + place]
        is_first[1:] |= tokens[1:] != tokens[:-1]
        firsts.append(np.flatnonzero(is_first))
        ranks.append(np.cumsum(is_first, dtype=np.int32) - 1)

    times = [np.diff(first, append=num_grams) for first in firsts]
    levels = []
    discounts = np.empty((ORDER, 4))
    is_held = np.ones(len(firsts[0]), dtype=bool)
    for place, first in enumerate(firsts):
        if place:
            is_held = times[place - 1][ranks[place - 1][first]] > 1
        if place + 1 == ORDER:
            counts = times[place]
            links = spans = np.empty(0, dtype=np.int32)
        else:
            counts = _count_left(order, ranks[place], firsts[place + 1], len(first))
            followers = np.diff(ranks[place + 1][first], append=len(firsts[place + 1]))
            spans = np.where(times[place] > 1, followers, 0)[is_held]
            inner = np.cumsum(spans) - spans
            links = np.where(spans > 0, inner, order[first[is_held]] + place + 1)
        discounts[place] = _choose_discounts(counts)
        last = text[order[first[is_held]] + place]
        levels.append(_narrow(last, counts[is_held], links, spans))

    return Counts(text, (_fill(levels[0], vocab_size), *levels[1:]), discounts)


def _sort_grams(text: np.ndarray, vocab_size: int, num_grams: int) -> np.ndarray:
    """Return where the grams of the text start, in lexicographic order, (grams,) int32."""
    codes = np.zeros(max(0, len(text) - HALF + 1), dtype=np.int64)
    for place in range(HALF):
        codes *= vocab_size
        codes += text[place : place + len(codes)]

    by_code = np.argsort(codes)
    codes = codes[by_code]
    halves = np.empty(len(codes), dtype=np.int64)
    halves[by_code] = np.cumsum(np.diff(codes, prepend=-1) != 0)
    whole = halves[:num_grams] * (len(codes) + 1) + halves[HALF : HALF + num_grams]
    return np.argsort(whole).astype(np.int32)


def _count_left(
    order: np.ndarray, ranks: np.ndarray, longer: np.ndarray, num_grams: int
) -> np.ndarray:
    """Return how many different tokens come before each gram: the longer grams that end with it;
    at least 1, also for the first gram of the text.
    """
    rank_at = np.empty(len(order) + 1, dtype=np.int32)
    rank_at[order] = ranks
    rank_at[len(order)] = num_grams  # what follows the last gram is not counted
    counts = np.bincount(rank_at[order[longer] + 1], minlength=num_grams + 1)
    return np.maximum(counts[:num_grams], 1)


def _choose_discounts(counts: np.ndarray) -> np.ndarray:
    """Return the discounts of a length, by how many of its counts are 1, 2, 3 and 4."""
    ones, twos, threes, fours = (int((counts == number).sum()) for number in (1, 2, 3, 4))
    if not ones or not twos:
        return np.array([0.0, 0.5, 0.5, 0.5])
    rate = ones / (ones + 2 * twos)
    wanted = [
        0.0,
        1 - 2 * rate * twos / ones,
        2 - 3 * rate * threes / twos,
        3 - 4 * rate * fours / max(1, threes),
    ]
    return np.clip(wanted, [0, *3 * [LEAST_DISCOUNT]], [0, 1, 2, 3])


def _narrow(tokens: np.ndarray, counts: np.ndarray, links: np.ndarray, spans: np.ndarray) -> Level:
    return Level(tokens, counts.astype(np.int32), links.astype(np.int32), spans.astype(np.int32))


def _fill(level: Level, vocab_size: int) -> Level:
    """Return the first level with a row for every id; those that were not read link to nothing."""
    rows = level.tokens.astype(np.int64)
    counts, spans = np.zeros((2, vocab_size), dtype=np.int32)
    links = np.full(vocab_size, ABSENT, dtype=np.int32)
    counts[rows] = level.counts
    links[rows] = level.links
    spans[rows] = level.spans
    return Level(np.arange(vocab_size, dtype=level.tokens.dtype), counts, links, spans)
