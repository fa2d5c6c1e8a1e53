"""An n-gram model of bytes: what a held-out text costs before any network saw it, in a quarter of a
second.

A language model's loss follows it from text to text: classic-books costs 14.5 % more than
WikiText-2 by this and 15.2 % more by our models, tinyshakespeare 6.1 % and 6.0 % (bzip2 had 6 and
5). Interpolation after Witten and Bell (1991).
"""

import numpy as np

from lightlm.data.subset import Split, TextSubset

ORDER = 4
"""Bytes before the one predicted. Five cost more on little text."""

TRAIN_BYTES = 600_000
HELD_OUT_BYTES = 100_000
"""Read of a text; whatever its size, the same amount, so that texts compare."""

LOOKED_THROUGH_BYTES = 30_000_000
"""A sample is spread over these; the rest of a large text is not read for it."""

PIECE_BYTES = 2_000
"""Least length of what is taken of a document at a time."""


def measure_ngram_bits(subset: TextSubset) -> tuple[float, int]:
    """Return the bits per held-out byte, and after how many bytes of training text: after little it
    costs more.
    """
    train = _spread(subset, "train", TRAIN_BYTES, subset.num_bytes)
    held_out = _spread(subset, "validation", HELD_OUT_BYTES, subset.num_validation_bytes)
    return score_bytes(train, held_out), len(train)


def measure_worth(subset: TextSubset, other: TextSubset) -> float:
    """Return how many bytes of a text's training split one byte of another text is worth for its
    held-out part, 0 to 1: a trial with n-gram models, in half a second.

    Three models: of a part of the text, of that and as much again, of that and as much of the other
    text. The score falls by the logarithm of the size; where the third one's lies on that line says
    how much of its own text the other one replaced. Compare the effective data of Hernandez et al.
    2021, arXiv 2102.01293.
    """
    held_out = _spread(subset, "validation", HELD_OUT_BYTES, subset.num_validation_bytes)
    own = _spread(subset, "train", TRAIN_BYTES, subset.num_bytes)
    half = len(own) // 2
    foreign = _spread(other, "train", half, other.num_bytes)
    # Every second piece, so that both halves are from all over the text.
    pieces = [own[start : start + PIECE_BYTES] for start in range(0, len(own), PIECE_BYTES)]
    first, second = b"".join(pieces[::2]), b"".join(pieces[1::2])
    if not second or not foreign:
        return 0.0

    alone = score_bytes(first, held_out)
    per_doubling = alone - score_bytes(first + second, held_out)
    gained = alone - score_bytes(first + foreign, held_out)
    if gained <= 0 or per_doubling <= 0:
        return 0.0
    replaced = 2 ** (gained / per_doubling) - 1
    return min(1.0, replaced * len(second) / len(foreign))


def score_bytes(train: bytes, held_out: bytes) -> float:
    """Return the bits per byte of `held_out`, its first ORDER bytes left out, by an n-gram model
    of `train`.

    Each order's estimate is weighed against the shorter one's by how many different bytes followed
    the context.
    """
    seen = np.frombuffer(train, np.uint8)
    wanted = np.frombuffer(held_out, np.uint8)
    if len(wanted) <= ORDER or len(seen) <= ORDER:
        return 8.0

    targets = wanted[ORDER:].astype(np.uint64)
    likely = np.full(len(targets), 1 / 256)
    for length in range(ORDER + 1):
        grams, counts = np.unique(
            (_contexts(seen, length) << np.uint64(8)) | seen[length:], return_counts=True
        )
        contexts, starts = np.unique(grams >> np.uint64(8), return_index=True)
        totals = np.add.reduceat(counts, starts)
        followers = np.diff(np.append(starts, len(grams)))
        asked = _contexts(wanted, length)[ORDER - length :]
        place = np.minimum(np.searchsorted(contexts, asked), len(contexts) - 1)
        is_known = contexts[place] == asked
        gram = (asked << np.uint64(8)) | targets
        found = np.minimum(np.searchsorted(grams, gram), len(grams) - 1)
        count = np.where(grams[found] == gram, counts[found], 0)
        weight = followers[place]
        likely = np.where(is_known, (count + weight * likely) / (totals[place] + weight), likely)

    return float(-np.log2(likely).mean())


def _contexts(text: np.ndarray, length: int) -> np.ndarray:
    """Return the `length` bytes before each position from `length` on, as one number each."""
    codes = np.zeros(len(text) - length, np.uint64)
    for start in range(length):
        codes = (codes << np.uint64(8)) | text[start : start + len(codes)]
    return codes


def _spread(subset: TextSubset, split: Split, wanted_bytes: int, num_bytes: int) -> bytes:
    """Return beginnings of documents from all over a split, about `wanted_bytes` in all."""
    sample = bytearray()
    seen = 0
    share = wanted_bytes / max(1, min(num_bytes, LOOKED_THROUGH_BYTES))
    for document in subset.read_documents(split):
        seen += len(document)
        due = int(share * seen) - len(sample)
        if due >= min(len(document), PIECE_BYTES):
            sample += document[:due] + b"\n"
        if len(sample) >= wanted_bytes:
            break
    return bytes(sample[:wanted_bytes])
