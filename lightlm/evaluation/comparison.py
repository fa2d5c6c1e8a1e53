"""The comparison of champion and challenger: a paired bootstrap over held-out documents."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from pydantic import BaseModel

from lightlm.evaluation.score import DocumentScores
from lightlm.quantities import count

if TYPE_CHECKING:
    import numpy as np

CONFIDENCE = 0.95
"""Confidence of the interval of the difference; all of it below zero: the challenger is better."""

RESAMPLES = 2000
"""Number of resamples; the ends of a 95 % interval then vary by a thirtieth of its width."""

MOST_GROUPS = 5000
"""Documents up to which each is resampled alone; more are grouped, to take at most 0.2 s."""

FEWEST_DOCUMENTS = 6
"""Documents below which all may be better by chance: (1/2)^5 is 3 %."""

HISTOGRAM_BINS = 41

ADVICE = "hold out more text with --set dataset.validation_fraction=0.2, or give more hours"
"""What to do where the held-out text has too few documents."""


class Comparison(BaseModel, frozen=True):
    """Two models on the same documents; differences are challenger minus champion, bits per byte.

    `num_left_out` documents are not compared: the champion had learned from them. `histogram`
    counts the resampled differences in equal steps from `lowest` to `highest`.
    """

    champion_version: str
    champion_bits_per_byte: float
    challenger_bits_per_byte: float
    difference: float
    low: float
    high: float
    num_documents: int
    num_better_documents: int
    num_left_out: int
    num_bytes: int
    lowest: float
    highest: float
    histogram: list[int]
    advice: str = ADVICE
    """What to do where these are too few documents to tell."""

    @property
    def is_better(self) -> bool:
        """Whether the whole interval is below zero: the challenger is better."""
        return self.num_documents >= FEWEST_DOCUMENTS and self.high < 0

    @property
    def verdict(self) -> str:
        """Return the finding in one sentence, without the versions' names."""
        scores = (
            f"{self.challenger_bits_per_byte:.4f} against {self.champion_bits_per_byte:.4f} bits "
            f"per byte on the same {self.num_bytes:,} bytes"
        )

        if self.num_documents < FEWEST_DOCUMENTS:
            return (
                f"{scores}, but {format_too_few(self.num_documents)} to tell ({FEWEST_DOCUMENTS} "
                f"at least); {self.advice}"
            )

        left_out = (
            f" that the champion had not learned, {self.num_left_out:,} left out"
            if self.num_left_out
            else ""
        )

        return (
            f"{scores}, a difference of {self.difference:+.4f} ({CONFIDENCE:.0%} interval "
            f"{self.low:+.4f} to "
            f"{self.high:+.4f}, paired bootstrap over {self.num_documents:,} documents{left_out})"
        )


def format_too_few(num_documents: int) -> str:
    """Return "1 document is too few"."""
    return f"{count(num_documents, 'document')} {'is' if num_documents == 1 else 'are'} too few"


def compare(
    champion_version: str,
    champion: DocumentScores,
    challenger: DocumentScores,
    seed: int = 0,
    leave_out: Collection[int] = (),
) -> Comparison | None:
    """Return the paired comparison on the first documents that both have scored.

    `leave_out` are indexes of documents to skip. Returns None if no document is left, and the same
    result for the same seed.

    Raises:
        ValueError: they are not scores of the same documents.
    """
    import numpy as np

    count = min(len(champion.nats), len(challenger.nats))
    if not count or champion.num_bytes[:count] != challenger.num_bytes[:count]:
        raise ValueError(
            "the scores are of different documents; score both versions on one held-out text"
        )

    kept = [index for index in range(count) if index not in leave_out]
    if not kept:
        return None

    num_bytes = np.asarray(champion.num_bytes, dtype=np.float64)[kept]
    old, new = (np.asarray(scores.nats)[kept] / np.log(2) for scores in (champion, challenger))
    better = int((new < old).sum())
    bits = _group(new - old)
    sizes = _group(num_bytes)
    random = np.random.default_rng(seed)
    differences = np.empty(RESAMPLES)
    for index in range(RESAMPLES):
        chosen = random.integers(0, len(bits), len(bits))
        differences[index] = bits[chosen].sum() / sizes[chosen].sum()

    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    counts, edges = np.histogram(differences, bins=HISTOGRAM_BINS)
    return Comparison(
        champion_version=champion_version,
        champion_bits_per_byte=float(old.sum() / num_bytes.sum()),
        challenger_bits_per_byte=float(new.sum() / num_bytes.sum()),
        difference=float((new - old).sum() / num_bytes.sum()),
        low=float(low),
        high=float(high),
        num_documents=len(kept),
        num_better_documents=better,
        num_left_out=count - len(kept),
        num_bytes=int(num_bytes.sum()),
        lowest=float(edges[0]),
        highest=float(edges[-1]),
        histogram=[int(one) for one in counts],
    )


def _group(values: "np.ndarray") -> "np.ndarray":
    """Return the sums of neighbors where there are more values than MOST_GROUPS."""
    import numpy as np

    size = -(-len(values) // MOST_GROUPS)
    return np.add.reduceat(values, np.arange(0, len(values), size))
