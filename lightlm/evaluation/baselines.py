"""Baselines of a score: an n-gram model and compressors on the same held-out bytes."""

import bz2
import lzma

from lightlm.data.ngram import score_bytes
from lightlm.data.subset import TextSubset

NGRAM_ORDER = 5
NGRAM_TRAIN_BYTES = 4_000_000
NGRAM_HELD_OUT_BYTES = 300_000
"""Bytes that the n-gram model reads in three seconds; ten times as many gain a few hundredths."""

COMPRESSED_TRAIN_BYTES = 4_000_000
COMPRESSED_HELD_OUT_BYTES = 1_000_000
"""Bytes that a compressor sees before, and bytes that it is charged for."""


def score_baselines(subset: TextSubset) -> dict[str, float]:
    """Return bits per held-out byte by name, of an n-gram model and of compressors.

    A compressor's bits are those that the held-out text adds behind the training text; bzip2
    remembers 900 kB of it.
    """
    train = _read(subset, "train", NGRAM_TRAIN_BYTES)
    held_out = _read(subset, "validation", COMPRESSED_HELD_OUT_BYTES)
    before = train[:COMPRESSED_TRAIN_BYTES]
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
        f"n-gram, order {NGRAM_ORDER}": score_bytes(
            train, held_out[:NGRAM_HELD_OUT_BYTES], NGRAM_ORDER
        ),
        "bzip2": 8 * added_by_bzip2 / max(1, len(held_out)),
        "zstd": 8 * added_by_zstd / max(1, len(held_out)),
        "xz": 8 * added / max(1, len(held_out)),
    }


def _read(subset: TextSubset, split: str, most: int) -> bytes:
    content = bytearray()
    for document in subset.read_documents("validation" if split == "validation" else "train"):
        content += document
        if len(content) >= most:
            break
    return bytes(content[:most])
