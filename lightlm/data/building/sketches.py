"""MinHash signatures of documents, in the files that datatrove's stages for near copies read.

Words are LightLM's own, which know every script; datatrove's need a package a language. Runs of
five words and 14 buckets of 8 values are datatrove's defaults, as for FineWeb. Of pairs with 0.8,
0.7 and 0.5 of their runs in common, 92, 56 and 5 of 100 are found; no pair is looked at again.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue]  (compiled, without stubs)

from lightlm.data.copies.duplicates import digest_of
from lightlm.data.copies.shingles import LEAST_WORDS, hash_words

WORDS = 5
BUCKETS = 14
HASHES = 8
"""Words of a run, buckets of a signature, and MinHash values in each."""

VALUES = 128
"""MinHash values that are computed: a power of two is made faster than 112."""

SEED = 1

RECORD = np.dtype([*((f"value{index}", "<u4") for index in range(HASHES)), ("document", "<u4")])


class Signatures:
    """The signatures of the documents of a task, by bucket."""

    def __init__(self) -> None:
        self._values: list[np.ndarray] = []
        self._numbers: list[np.ndarray] = []

    def add(self, numbers: Sequence[int], texts: Sequence[bytes]) -> None:
        """Add documents by their numbers. One of few words is a copy only if all of it is equal."""
        values = np.empty((len(texts), BUCKETS * HASHES), dtype=np.uint32)
        words = hash_words(texts)
        is_long = np.diff(words.starts) >= LEAST_WORDS
        runs, starts = words.shingles(WORDS)
        if is_long.any():
            counts = np.diff(starts)
            runs = runs[np.repeat(is_long, counts)]
            ends = np.concatenate(([0], np.cumsum(counts[is_long]))).astype(np.uint64)
            rows = RMinHash.digest_matrix_from_flat_token_hashes(runs, ends, VALUES, SEED).to_rows()
            values[is_long] = np.array(rows, dtype=np.uint32)[:, : BUCKETS * HASHES]
        for row in np.flatnonzero(~is_long).tolist():
            values[row] = _hash_whole(texts[row])
        self._values.append(values)
        self._numbers.append(np.array(numbers, dtype=np.uint32))

    def write(self) -> Iterator[bytes]:
        """Yield the file of each bucket: the records of its values and documents, sorted."""
        values = np.concatenate([np.empty((0, BUCKETS * HASHES), np.uint32), *self._values])
        numbers = np.concatenate([np.empty(0, np.uint32), *self._numbers])
        for bucket in range(BUCKETS):
            records = np.empty(len(numbers), dtype=RECORD)
            for index in range(HASHES):
                records[f"value{index}"] = values[:, bucket * HASHES + index]
            records["document"] = numbers
            records.sort(order=RECORD.names)
            yield records.tobytes()


def _hash_whole(text: bytes) -> np.ndarray:
    """Return values that are equal for documents that are equal but for white space."""
    digest = digest_of(text)
    stretched = b"".join(
        hashlib.sha256(digest + bytes([index])).digest()
        for index in range(BUCKETS * HASHES * 4 // 32)
    )
    return np.frombuffer(stretched, np.uint32)
