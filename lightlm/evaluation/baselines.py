"""Baselines of a score: a counting model and compressors on the same held-out bytes."""

import bz2
import lzma

import numpy as np

from lightlm.data.subset import Split, TextSubset
from lightlm.data.tokenization.tokenizer import Tokenizer
from lightlm.evaluation.score import bits_per_byte
from lightlm.ngram.counts import MOST_TOKENS, count_grams
from lightlm.ngram.mixture import ORDER, CountingModel

COUNTING = f"counting, Kneser-Ney of order {ORDER}"
"""Name of the counting model among the baselines."""

COUNTED_TRAIN_BYTES = 16_000_000
COUNTED_HELD_OUT_BYTES = 4_000_000
"""Bytes of either text whose tokens are counted, and scored: eight seconds on one core."""

COMPRESSED_TRAIN_BYTES = 4_000_000
COMPRESSED_HELD_OUT_BYTES = 1_000_000
"""Bytes that a compressor sees before, and bytes that it is charged for."""


def score_compressors(subset: TextSubset) -> dict[str, float]:
    """Return bits per held-out byte by name: those that the held-out text adds behind the training
    text; bzip2 remembers 900 kB of it.
    """
    before = b"".join(_read(subset, "train", COMPRESSED_TRAIN_BYTES))[:COMPRESSED_TRAIN_BYTES]
    held_out = b"".join(_read(subset, "validation", COMPRESSED_HELD_OUT_BYTES))
    held_out = held_out[:COMPRESSED_HELD_OUT_BYTES]
    added = len(lzma.compress(before + held_out, preset=6)) - len(lzma.compress(before, preset=6))
    near = before[: max(0, 900_000 - len(held_out))]
    added_by_bzip2 = (
        len(bz2.compress(near + held_out)) - len(bz2.compress(near))
        if near
        else len(bz2.compress(held_out))
    )

    import pyarrow

    # Level 12 remembers 4 MB and takes half a second; 19 is 0.25 bits better on WikiText-2, for ten
    # seconds.
    zstd = pyarrow.Codec("zstd", compression_level=12)
    added_by_zstd = len(zstd.compress(before + held_out)) - len(zstd.compress(before))
    return {
        "bzip2": 8 * added_by_bzip2 / max(1, len(held_out)),
        "zstd": 8 * added_by_zstd / max(1, len(held_out)),
        "xz": 8 * added / max(1, len(held_out)),
    }


def score_counting(subset: TextSubset, tokenizer: Tokenizer) -> float:
    """Return the bits per held-out byte of a counting model over a tokenizer's tokens.

    It reads the first COUNTED_TRAIN_BYTES and at most MOST_TOKENS tokens, and is charged for the
    first COUNTED_HELD_OUT_BYTES; end-of-text is counted and charged for as with a network.
    """
    train = _read(subset, "train", COUNTED_TRAIN_BYTES)
    held_out = _read(subset, "validation", COUNTED_HELD_OUT_BYTES)
    tokens = _encode(train, subset.read_ends("train"), tokenizer)[:MOST_TOKENS]
    counts = count_grams(tokens, tokenizer.vocab_size)
    wanted = _encode(held_out, subset.read_ends("validation"), tokenizer)
    likely, _, _ = CountingModel(counts).score(wanted)
    return bits_per_byte(float(-np.log(likely).sum()), max(1, sum(map(len, held_out))))


def _encode(documents: list[bytes], ends: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """Return the ids of documents behind an end-of-text token; another one ends each."""
    ids = [tokenizer.end_of_text_id]
    encoded = tokenizer.encode_batch([document.decode("utf-8") for document in documents])
    for one, is_end in zip(encoded, ends.tolist(), strict=False):
        ids += [*one, tokenizer.end_of_text_id] if is_end else one
    return np.asarray(ids, dtype=np.uint32)


def _read(subset: TextSubset, split: Split, most: int) -> list[bytes]:
    """Return the first documents of a split, of about `most` bytes."""
    documents = []
    left = most
    for document in subset.read_documents(split):
        documents.append(document)
        left -= len(document)
        if left <= 0:
            break
    return documents
