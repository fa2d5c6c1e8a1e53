"""The score as values: bits per byte of a held-out text, and nats document by document."""

import math

from pydantic import BaseModel


class Score(BaseModel, frozen=True, extra="forbid"):
    """Bits per byte and the text it was measured on. `is_whole`: all held-out text was read.

    Where a version has count tables, `bits_per_byte` is that of network and counts together; each
    alone stands in the last two.
    """

    bits_per_byte: float
    nats_per_token: float
    num_bytes: int
    num_tokens: int
    num_documents: int
    text_sha256: str
    is_whole: bool
    network_bits_per_byte: float | None = None
    counting_bits_per_byte: float | None = None

    @property
    def network_alone(self) -> float:
        """Bits per byte of the network without count tables."""
        if self.network_bits_per_byte is None:
            return self.bits_per_byte
        return self.network_bits_per_byte


class DocumentScores(BaseModel, frozen=True):
    """A model's loss on each document in nats, and each document's size in bytes of raw text."""

    nats: list[float]
    num_bytes: list[int]

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte over all of these documents."""
        return bits_per_byte(sum(self.nats), sum(self.num_bytes))


class TextScore(BaseModel, frozen=True):
    """The score of a model on the held-out part of a further text."""

    name: str
    score: Score


class Evaluated(BaseModel, frozen=True):
    """The score of a model on a held-out text, its loss document by document, and its scores on
    further texts.
    """

    score: Score
    documents: DocumentScores
    others: tuple[TextScore, ...] = ()

    @property
    def together(self) -> float | None:
        """Bits per byte over all held-out text that was scored; None where there is one text."""
        if not self.others:
            return None
        scores = [self.score, *(one.score for one in self.others)]
        return sum(one.bits_per_byte * one.num_bytes for one in scores) / sum(
            one.num_bytes for one in scores
        )


def bits_per_byte(nats: float, num_bytes: int) -> float:
    """Return the bits per byte of a text of `num_bytes` bytes whose loss is `nats` in all."""
    return nats / math.log(2) / num_bytes
