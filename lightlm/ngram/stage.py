"""Count tables in the store: those of a text's token shards, made once for all its runs."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lightlm.data.shards import TokenShards
from lightlm.data.token_array import TokenArray
from lightlm.json_object import JsonObject
from lightlm.ngram.counts import count_grams
from lightlm.ngram.held_back import choose_counted, is_enough, leave_out_held_back, take_evenly
from lightlm.ngram.mixture import NUM_CONTEXTS, CountingModel
from lightlm.store.lock import ignore
from lightlm.store.stage import fingerprint, open_stage

KIND = "ngrams"
FORMAT = 3

SAMPLED_TOKENS = 65_536
SAMPLED_STRETCHES = 64
"""Held-out tokens, and the stretches they are in, that tell the plan what the counts are worth
there: 0.2 s. Eight stretches of 4,096 were 5 % too good once. Text held back of what is
trained on says too much: on the built-in text it had 1.4 bits per byte where the held-out documents
cost 2.2, as the rest of each document was counted.
"""

LEAST_STRETCH = 128
"""Tokens of a stretch at least; of a smaller text, all are one."""

BYTES_PER_TOKEN = 20
"""Bytes of tables for each counted token at most, in tokens of two bytes: 14 on WikiText-2."""


class CountedText(NamedTuple):
    """The tables of a text. `bits_per_byte` is the score of the counts on a sample of the held-out
    text, and `seconds_per_token` what a token's score took.
    """

    folder: Path
    fingerprint: str
    num_tokens: int
    bits_per_byte: float
    seconds_per_token: float
    reused: bool


def can_count(shards: TokenShards) -> bool:
    """Return whether the text is here, and long enough to hold some back for the gate."""
    return is_enough(shards.num_train_tokens) and not shards.is_remote


def is_counted(home: Path, shards: TokenShards, most_tokens: int) -> bool:
    """Return whether the store has the tables already; their digests are checked when opened."""
    return find_tables(home, fingerprint(KIND, _key(shards, most_tokens))).is_dir()


def find_tables(home: Path, name: str) -> Path:
    """Return where the store has the tables of a fingerprint."""
    return home / "store" / KIND / name


def count_shards(
    home: Path,
    shards: TokenShards,
    most_tokens: int,
    *,
    report: Callable[[str], None] = ignore,
) -> CountedText:
    """Return the tables of a text's training tokens, at most `most_tokens` of them; made or found.

    Raises:
        StoreError: the disk refused, or has no room.
    """
    stage = open_stage(
        home,
        KIND,
        _key(shards, most_tokens),
        lambda folder: _build(folder, shards, most_tokens),
        BYTES_PER_TOKEN * min(most_tokens, shards.num_train_tokens),
        report=report,
    )
    return CountedText(stage.folder, stage.fingerprint, reused=stage.reused, **stage.meta)


def _key(shards: TokenShards, most_tokens: int) -> JsonObject:
    most = min(most_tokens, shards.num_train_tokens)
    return {"format": FORMAT, "shards": shards.fingerprint, "most_tokens": most}


def _build(folder: Path, shards: TokenShards, most_tokens: int) -> JsonObject:
    tokens = shards.tokens("train")
    counted = choose_counted(leave_out_held_back(tokens), most_tokens)
    counts = count_grams(counted, shards.vocab_size)
    counts.write(folder)

    model = CountingModel(counts)
    held_out = _sample(shards.tokens("validation"))
    model.score(held_out[0])  # the first look sorts out the tables
    started = time.perf_counter()
    # A stretch's first tokens have only a part of their context.
    nats = [-np.log(model.score(one)[0][min(NUM_CONTEXTS, len(one) // 2) :]) for one in held_out]
    seconds = time.perf_counter() - started
    bytes_per_token = shards.num_validation_bytes / shards.num_validation_tokens
    return {
        "num_tokens": len(counted),
        "bits_per_byte": float(np.concatenate(nats).mean()) / np.log(2) / bytes_per_token,
        "seconds_per_token": seconds / sum(map(len, held_out)),
    }


def _sample(tokens: TokenArray) -> list[np.ndarray]:
    """Return stretches of the held-out tokens, spread evenly over them; all of a small text."""
    number = min(SAMPLED_STRETCHES, max(1, len(tokens) // LEAST_STRETCH))
    return take_evenly(tokens, number, min(SAMPLED_TOKENS, len(tokens)) // number)
