"""Memorization: how much of the training text a model continues word for word."""

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lightlm.data.copies.verbatim import find_longest_copy
from lightlm.data.splitting import Split
from lightlm.data.subset import TextSubset
from lightlm.data.tokenization.tokenizer import Tokenizer
from lightlm.generation.sampling import SamplingConfig
from lightlm.generation.text import Generator, load_generator
from lightlm.training.messages import Memorization

PREFIX_TOKENS = 32
CONTINUED_TOKENS = 32
"""Tokens of a prefix, and tokens that have to follow as they do in the text."""

NUM_PREFIXES = 200
BATCH_PREFIXES = 40
"""Prefixes of each split that are tried in all, and at once."""

READ_CHARACTERS = 1000
"""Characters of a document's beginning, which hold a prefix and what follows."""

MOST_BYTES = 32_000_000
"""Bytes of the text over which the prefixes are spread, and in which copies are looked for."""

SPLITS: tuple[Split, Split] = ("train", "validation")


def measure_memorization(
    folder: Path, subsets: Sequence[TextSubset], samples: Sequence[str], max_seconds: float
) -> Memorization:
    """Return the shares of prefixes that greedy text continues verbatim, and the longest copy in
    `samples`.

    Held-out prefixes are tried, too: what is likely to follow follows there as well. After
    `max_seconds` no further prefixes are tried; at least one batch of training text is.
    """
    ends_at = time.monotonic() + max_seconds
    generator = load_generator(folder)
    alone = Generator(generator.model, generator.tokenizer)
    learned, held_out = (
        mix_pieces(
            choose_pieces(subset, generator.tokenizer, split, len(subsets)) for subset in subsets
        )
        for split in SPLITS
    )

    tried = [0, 0]
    copied = [[0, 0], [0, 0]]
    for first in range(0, NUM_PREFIXES, BATCH_PREFIXES):
        for split, pieces in enumerate((learned, held_out)):
            batch = pieces[first : first + BATCH_PREFIXES]
            if not batch or (tried[0] and time.monotonic() > ends_at):
                continue
            tried[split] += len(batch)
            copied[split][0] += count_verbatim(alone, batch)
            if generator.mixture is not None:
                copied[split][1] += count_verbatim(generator, batch)

    network, together = zip(*copied, strict=True)
    return Memorization(
        num_prefixes=(tried[0], tried[1]),
        network=network,
        together=None if generator.mixture is None else together,
        longest_copy=max((copy_from(samples, one, len(subsets)) for one in subsets), key=len),
        sample_characters=sum(map(len, samples)),
    )


def copy_from(samples: Sequence[str], subset: TextSubset, num_texts: int = 1) -> str:
    """Return the longest piece of the samples that stands in the training text, one of so many; ""
    if none does.
    """
    texts = [sample.encode() for sample in samples]
    found = find_longest_copy(texts, subset.read_documents("train"), MOST_BYTES // num_texts)
    return found.text.decode("utf-8", "ignore")


def mix_pieces(texts: Iterable[Iterable[list[int]]]) -> list[list[int]]:
    """Return the pieces of several texts in an order by chance: time may end before the last."""
    pieces = [piece for text in texts for piece in text]
    random.Random(0).shuffle(pieces)  # noqa: S311
    return pieces


def choose_pieces(
    subset: TextSubset, tokenizer: Tokenizer, split: Split, num_texts: int = 1
) -> Iterator[list[int]]:
    """Yield the first tokens of documents from all over a split of one of so many texts, each a
    prefix and what follows it.
    """
    size = subset.num_bytes if split == "train" else subset.num_validation_bytes
    most_bytes = MOST_BYTES // num_texts
    step = max(1, min(size, most_bytes) * num_texts // NUM_PREFIXES)
    seen = due = 0
    for document in subset.read_documents(split):
        seen += len(document)
        if seen > most_bytes:
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
