"""How hard a text is before any model saw it: the bits per byte that bzip2 needs for a part of it.

A language model's loss follows it from text to text (measured: tinyshakespeare needs 10 % more bits than WikiText-2 of
bzip2, and of our models). A text that compresses well repeats itself; one that does not is harder to learn.
"""

import bz2

from lightlm.data.subset import TextSubset

SAMPLE_BYTES = 900_000
"""One block of bzip2; 0.1 s."""


def measure_compressibility(subset: TextSubset) -> tuple[float, int]:
    """Return bzip2's bits per byte of the first training text, and of how many bytes; little text compresses worse."""
    sample = bytearray()
    for document in subset.read_documents("train"):
        sample += document
        sample += b"\n"
        if len(sample) >= SAMPLE_BYTES:
            break
    content = bytes(sample[:SAMPLE_BYTES])
    return 8 * len(bz2.compress(content)) / max(1, len(content)), len(content)
