"""Permutations by a Feistel network: where an index goes is a function of a key, in constant time
and memory.
"""

from typing import TypeVar

import numpy as np

ROUNDS = 4
"""Rounds of the Feistel network; no statistical test of ours distinguishes four from a random
permutation.
"""

LEAST_VECTOR = 16
"""Indices from which numpy permutes them faster than Python."""

Index = TypeVar("Index", int, np.ndarray)


def permute(index: int, size: int, key: bytes) -> int:
    """Return where `index` goes in a permutation of range(size) that `key` chooses; O(1) in time
    and memory.

    A Feistel network over the next even number of bits; results outside the range are permuted
    again.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    while True:
        index = _turn(index, half, key)
        if index < size:
            return index


def permute_range(first: int, last: int, size: int, key: bytes) -> np.ndarray:
    """Return `permute` of every index from `first` to before `last`, uint64."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    places = np.arange(first, last, dtype=np.uint64)
    outside = np.arange(last - first)
    while outside.size >= LEAST_VECTOR:
        places[outside] = turned = _turn(places[outside], half, key)
        outside = outside[turned >= size]
    for index in outside.tolist():
        places[index] = permute(int(places[index]), size, key)
    return places


def _turn(index: Index, half: int, key: bytes) -> Index:
    """Return one pass through the network, of an int or of uint64: these wrap at 2^64, of which 32
    bits are kept.
    """
    mask = (1 << half) - 1
    left = index >> half
    right = index & mask
    for round_number in range(ROUNDS):
        left, right = right, left ^ (_mix(right, round_number, key) & mask)
    return left << half | right


def _mix(value: Index, round_number: int, key: bytes) -> Index:
    start = 4 * round_number
    state = (value * 0x9E3779B1 + int.from_bytes(key[start : start + 4], "big")) & 0xFFFFFFFF
    state = ((state ^ state >> 16) * 0x85EBCA6B) & 0xFFFFFFFF
    state = ((state ^ state >> 13) * 0xC2B2AE35) & 0xFFFFFFFF
    return state ^ state >> 16
