"""The score as values: bits per byte of a held-out text, and nats document by document."""

import math

from pydantic import BaseModel, ConfigDict


class Score(BaseModel):
    """Bits per byte and the text it was measured on. `is_whole`: all held-out text was read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bits_per_byte: float
    nats_per_token: float
    num_bytes: int
    num_tokens: int
    num_documents: int
    text_sha256: str
    is_whole: bool


class DocumentScores(BaseModel):
    """A model's loss on each document in nats, and each document's size in bytes of raw text."""

    model_config = ConfigDict(frozen=True)

    nats: list[float]
    num_bytes: list[int]

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte over all of these documents."""
        return bits_per_byte(sum(self.nats), sum(self.num_bytes))


class Evaluated(BaseModel):
    """The score of a model on a held-out text, and its loss document by document."""

    model_config = ConfigDict(frozen=True)

    score: Score
    documents: DocumentScores


def bits_per_byte(nats: float, num_bytes: int) -> float:
    """Return the bits per byte of a text of `num_bytes` bytes whose loss is `nats` in all."""
    return nats / math.log(2) / num_bytes
