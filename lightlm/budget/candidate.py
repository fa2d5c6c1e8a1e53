"""A candidate for the plan: a shape on a text, with its expected speed, tokens and loss."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from lightlm.budget.plan import Alternative, summarize_shape
from lightlm.budget.scaling import Prediction, worth_of_repeats
from lightlm.model.accounting import flops_per_token
from lightlm.model.config import ModelConfig
from lightlm.params import Weight

NOTICEABLY_OTHER = 0.2
"""Natural logarithm of the ratio of two shapes' costs per token from which both are shown."""


@dataclass(frozen=True)
class OtherFacts:
    """Facts of a further text: as its shards have them, the bytes of the first text that one of its
    bytes is worth, and the share of training that it gets, once that is settled.
    """

    name: str
    weight: Weight
    worth: float
    num_train_tokens: int
    num_train_bytes: int
    num_validation_tokens: int
    share: float = 0.0

    def resized(self, change: float) -> "OtherFacts":
        """Return the facts with tokens that are `change` times as long."""
        return replace(
            self,
            num_train_tokens=int(self.num_train_tokens / change),
            num_validation_tokens=int(self.num_validation_tokens / change),
        )

    def extended(self, num_bytes: int) -> "OtherFacts":
        """Return the facts of more, or less, of the same text: `num_bytes` to train on."""
        return _extend(self, num_bytes)


@dataclass(frozen=True)
class TextFacts:
    """Facts of the tokenized text that a plan needs."""

    vocab_size: int
    num_train_tokens: int
    num_train_bytes: int
    num_validation_tokens: int
    num_validation_bytes: int
    text_sha256: str = ""
    """SHA-256 of the held-out text."""
    difficulty: float = 1.0
    """Bits per byte of the text relative to WikiText-2."""
    name: str = ""
    others: tuple[OtherFacts, ...] = ()
    """The further texts; the facts above are of the first, by which the model is judged."""
    num_first_tokens: int = 0
    """Tokens of the first held-out document, which the final score reads to its end in any case."""

    @property
    def own_share(self) -> float:
        """Fraction of training that reads the first text."""
        return 1.0 - sum(one.share for one in self.others)

    @property
    def epoch_tokens(self) -> int:
        """Tokens of training in which the first text is read once."""
        return int(self.num_train_tokens / self.own_share)

    @property
    def unique_bytes(self) -> int:
        """Bytes of different text that training reads."""
        return self.num_train_bytes + sum(one.num_train_bytes for one in self.others if one.share)

    @property
    def num_scored_tokens(self) -> int:
        """Held-out tokens that the final score reads: of others no more than of the first."""
        most = self.num_validation_tokens
        return most + sum(min(most, one.num_validation_tokens) for one in self.others)

    @property
    def texts(self) -> tuple[OtherFacts, ...]:
        """The first text and the others, each with its share."""
        own = OtherFacts(
            name=self.name,
            weight="auto",
            worth=1.0,
            num_train_tokens=self.num_train_tokens,
            num_train_bytes=self.num_train_bytes,
            num_validation_tokens=self.num_validation_tokens,
            share=self.own_share,
        )
        return own, *self.others

    def worth_of(self, seen_bytes: float) -> float:
        """Return the bytes of fresh text of the first kind that training is worth."""
        return sum(
            one.worth * worth_of_repeats(one.share * seen_bytes, one.num_train_bytes)
            for one in self.texts
        )

    def resized(self, vocab_size: int, change: float) -> "TextFacts":
        """Return the facts with another vocabulary, whose tokens are `change` times as long."""
        return replace(
            self,
            vocab_size=vocab_size,
            num_train_tokens=int(self.num_train_tokens / change),
            num_validation_tokens=int(self.num_validation_tokens / change),
            num_first_tokens=int(self.num_first_tokens / change),
            others=tuple(one.resized(change) for one in self.others),
        )

    def extended(self, num_bytes: int) -> "TextFacts":
        """Return the facts of more, or less, of the same text: `num_bytes` to train on."""
        return _extend(self, num_bytes)

    @property
    def bytes_per_token(self) -> float:
        """Bytes of raw text that a token stands for."""
        return self.num_train_bytes / max(1, self.num_train_tokens)


Facts = TypeVar("Facts", OtherFacts, TextFacts)


def _extend(facts: Facts, num_bytes: int) -> Facts:
    share = num_bytes / max(1, facts.num_train_bytes)
    num_tokens = max(1, round(facts.num_train_tokens * share))
    return replace(facts, num_train_bytes=num_bytes, num_train_tokens=num_tokens)


@dataclass(frozen=True)
class Candidate:
    """A shape with what is expected of it."""

    model: ModelConfig
    is_compiled: bool
    tokens_per_second: float
    training_seconds: float
    prediction: Prediction
    is_cut: bool = False
    """Whether the text is too small for all of the time."""

    @property
    def tokens(self) -> int:
        """Tokens that fit into the training time."""
        return int(self.tokens_per_second * self.training_seconds)

    def summary(self) -> str:
        """Return the shape and what makes it differ, in a line."""
        return summarize_shape(self.model) + (", compiled" if self.is_compiled else "")


def list_runners_up(best: Candidate, others: list[Candidate]) -> Iterator[Alternative]:
    """Yield the best two of other widths or depths that differ enough to be worth a look."""
    shown = [best.model]
    for other in others:
        cost = flops_per_token(other.model)
        if any(abs(math.log(cost / flops_per_token(model))) < NOTICEABLY_OTHER for model in shown):
            continue
        shown.append(other.model)
        yield Alternative(
            summary=f"{other.summary()}, {other.tokens:,} tokens",
            predicted_bits_per_byte=other.prediction.bits_per_byte,
        )
        if len(shown) == 3:
            return
