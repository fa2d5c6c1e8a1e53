"""The validation sample: stretches of held-out documents, scored now and then while training."""

import math
from itertools import pairwise

import numpy as np
from pydantic import BaseModel

from lightlm.data.shards import TokenShards
from lightlm.data.tokenization.tokenizer import Tokenizer
from lightlm.evaluation.scoring import score_tokens
from lightlm.model.transformer import Transformer

VALIDATION_STRETCHES = 8
"""Stretches of the held-out text in the validation sample."""


class ValidationSample(BaseModel, arbitrary_types_allowed=True):
    """Tokens of some held-out documents, and the bytes that they stand for."""

    pieces: list[np.ndarray]
    num_bytes: int

    @property
    def num_tokens(self) -> int:
        """Tokens that are scored: each piece's first is only predicted from."""
        return sum(len(piece) - 1 for piece in self.pieces)


def choose_validation_sample(
    shards: TokenShards, tokenizer: Tokenizer, max_tokens: int
) -> ValidationSample:
    """Return stretches of held-out documents spread evenly over the text, about `max_tokens` tokens
    in all.

    Each stretch starts with the token before its first document, which that one's first token is
    predicted from. A document longer than twice its share is cut: a book must not make each
    validation read all of it.
    """
    offsets = shards.validation_offsets().astype(np.int64)
    tokens = shards.tokens("validation")
    count = len(offsets) - 1
    num_stretches = min(VALIDATION_STRETCHES, count)
    share = max(1, max_tokens // num_stretches)
    firsts = [index * count // num_stretches for index in range(num_stretches)] + [count]
    pieces = []
    num_bytes = 0

    for first, limit in pairwise(firsts):
        last = first + 1
        while last < limit and offsets[last, 0] - offsets[first, 0] < share:
            last += 1
        start = int(offsets[first, 0])
        end = int(offsets[last, 0])
        if end - start > 2 * share:
            end = start + share
            num_bytes += len(tokenizer.decode_bytes(tokens[start:end].tolist()))
        else:
            num_bytes += int(offsets[last, 1] - offsets[first, 1])
        pieces.append(np.asarray(tokens[start - 1 : end]))

    return ValidationSample(pieces=pieces, num_bytes=num_bytes)


def validate(model: Transformer, sample: ValidationSample) -> float:
    """Return the bits per byte of the sample."""
    nats = sum(float(score_tokens(model, piece).sum()) for piece in sample.pieces)
    return nats / math.log(2) / max(1, sample.num_bytes)
