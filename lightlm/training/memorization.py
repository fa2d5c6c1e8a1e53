"""Memorization: how much of the training text a model continues word for word."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from lightlm.data.subset import TextSubset
from lightlm.data.tokenization.tokenizer import Tokenizer
from lightlm.generation.sampling import SamplingConfig
from lightlm.generation.text import Generator, load_generator
from lightlm.json_object import JsonObject

PREFIX_TOKENS = 32
CONTINUED_TOKENS = 32
"""Tokens of a prefix, and tokens that have to follow as they do in the text."""

NUM_PREFIXES = 128
BATCH_PREFIXES = 32
"""Prefixes that are tried in all, and at once."""

READ_CHARACTERS = 1000
"""Characters of a document's beginning, which hold a prefix and what follows."""

MOST_BYTES = 32_000_000
"""Bytes of the text over which the prefixes are spread."""


def measure_memorization(folder: Path, subset: TextSubset, max_seconds: float) -> JsonObject:
    """Return how many prefixes of the training text were tried, and the share that greedy text
    continues verbatim: of the network alone, and with its count tables (None without).

    After `max_seconds` no further prefixes are tried; at least one batch is.
    """
    ends_at = time.monotonic() + max_seconds
    generator = load_generator(folder)
    alone = Generator(generator.model, generator.tokenizer)
    pieces = list(choose_pieces(subset, generator.tokenizer))
    num_tried = num_alone = num_together = 0
    for first in range(0, len(pieces), BATCH_PREFIXES):
        if num_tried and time.monotonic() > ends_at:
            break
        batch = pieces[first : first + BATCH_PREFIXES]
        num_tried += len(batch)
        num_alone += count_verbatim(alone, batch)
        if generator.mixture is not None:
            num_together += count_verbatim(generator, batch)

    tried = max(1, num_tried)
    together = None if generator.mixture is None else num_together / tried
    return {"num_prefixes": num_tried, "network": num_alone / tried, "together": together}


def choose_pieces(subset: TextSubset, tokenizer: Tokenizer) -> Iterator[list[int]]:
    """Yield the first tokens of documents from all over the training text, each a prefix and what
    follows it.
    """
    step = max(1, min(subset.num_bytes, MOST_BYTES) // NUM_PREFIXES)
    seen = due = 0
    for document in subset.read_documents("train"):
        seen += len(document)
        if seen > MOST_BYTES:
            return
        if seen < due:
            continue
        text = document[: 4 * READ_CHARACTERS].decode("utf-8", "ignore")[:READ_CHARACTERS]
        ids = tokenizer.encode(text)[: PREFIX_TOKENS + CONTINUED_TOKENS]
        if len(ids) == PREFIX_TOKENS + CONTINUED_TOKENS:
            due = seen + step
            yield ids


def count_verbatim(generator: Generator, pieces: Sequence[Sequence[int]]) -> int:
    """Return how many pieces the likeliest ids after their prefixes repeat to their ends."""
    sampling = SamplingConfig(
        max_new_tokens=CONTINUED_TOKENS,
        temperature=0,
        top_k=0,
        top_p=1.0,
        repetition_penalty=1.0,
        seed=None,
    )
    prefixes = [piece[:PREFIX_TOKENS] for piece in pieces]
    chosen = zip(*generator.choose_ids(prefixes, sampling), strict=True)
    return sum(
        list(ids) == list(piece[PREFIX_TOKENS:]) for ids, piece in zip(chosen, pieces, strict=True)
    )
