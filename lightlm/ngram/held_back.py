"""The text that a gate is fitted to: stretches of the training tokens that neither the network nor
the counts learn.

They are whole documents where these are short, as held-out text is: what stands in the rest of a
document makes a part of it too easy for counts.
"""

import numpy as np

from lightlm.data.token_array import TokenArray

STRETCHES = 8
"""Stretches that are held back, spread evenly over the text."""

MOST_HELD_BACK = 32_768
HELD_BACK_FRACTION = 0.02
"""Tokens that are held back at most, in all, and as a fraction of the training tokens. A gate has
fourteen weights: 8,000 tokens fit it as well to 0.001 bits per byte.
"""

LEAST_HELD_BACK = 1_000
"""Tokens below which no gate is fitted: the text is too small."""

PIECES = 64
"""Pieces of a text that is too long to be counted as a whole."""


LONGEST = 3
SHORTEST = 0.5
"""Multiples of a stretch's length: what is looked through for the ends of documents, and what whole
documents have to come to.
"""


def is_enough(num_tokens: int) -> bool:
    """Return whether a text of `num_tokens` training tokens is long enough to hold some back."""
    return int(HELD_BACK_FRACTION * num_tokens) >= LEAST_HELD_BACK


def choose_stretches(tokens: TokenArray) -> list[slice]:
    """Return the stretches of the training tokens that are held back; none of a small text."""
    if not is_enough(len(tokens)):
        return []
    length = min(MOST_HELD_BACK, int(HELD_BACK_FRACTION * len(tokens))) // STRETCHES
    starts = [(2 * index + 1) * len(tokens) // (2 * STRETCHES) for index in range(STRETCHES)]
    end_of_text = tokens[0:1][0]  # a split begins with one
    return [_fit_to_documents(tokens, start, length, end_of_text) for start in starts]


def _fit_to_documents(tokens: TokenArray, start: int, length: int, end_of_text: int) -> slice:
    """Return about `length` tokens from `start` on that are whole documents; of longer documents,
    and of a short one before a longer one, the tokens as they are.
    """
    looked_at = tokens[start : start + LONGEST * length]
    first, *others = (np.flatnonzero(looked_at == end_of_text) + 1).tolist() or [0]
    whole = min(others, key=lambda end: abs(end - first - length), default=first)
    if whole - first < SHORTEST * length:
        return slice(start, start + length)
    return slice(start + first, start + whole)


def read_held_back(tokens: TokenArray) -> list[np.ndarray]:
    """Return the stretches of the training tokens that are held back."""
    return [tokens[stretch] for stretch in choose_stretches(tokens)]


def leave_out_held_back(tokens: TokenArray) -> TokenArray:
    """Return the training tokens without those that are held back, read from the same files."""
    return tokens.without(choose_stretches(tokens))


def choose_counted(tokens: TokenArray, most: int) -> np.ndarray:
    """Return at most `most` tokens to count: all, or pieces from all over the text."""
    if len(tokens) <= most:
        return tokens[0 : len(tokens)]
    return np.concatenate(take_evenly(tokens, PIECES, max(1, most // PIECES)))


def take_evenly(tokens: TokenArray, number: int, length: int) -> list[np.ndarray]:
    """Return `number` pieces of `length` tokens, from the first token to the last."""
    last = len(tokens) - length
    starts = [index * last // max(1, number - 1) for index in range(number)]
    return [tokens[start : start + length] for start in starts]
