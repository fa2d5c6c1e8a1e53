"""Leaks: training documents that hold much of a held-out one, looked up run by run of words."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from lightlm.data.copies.shingles import LEAST_WORDS, WordHashes, hash_words
from lightlm.data.copies.short_texts import ShortTexts
from lightlm.data.copies.written import Documents

LEAK_WORDS = 5
LEAK_SHARE = 0.5
LEAST_LEAK_RUNS = 4

MOST_OWNERS = 8
"""Held-out documents that share a run of words; one that more share is a form's or a header's and
tells nothing.
"""

MOST_HELD_OUT_RUNS = 1 << 21
"""Runs of words of the held-out text in the index; of more, a sample by their hashes."""

MOST_HELD_OUT_REMOVED = 0.25
"""Fraction of the held-out bytes that may be removed because longer training documents quote them.
"""


@dataclass
class NearCopies:
    """What to leave out of each split (an array of booleans, one a document), and why."""

    left_out: dict[str, np.ndarray]
    not_looked_at: str | None = None
    """What was not compared, and why, as a sentence."""


class LeakIndex:
    """Where the distinctive runs of words of the held-out documents stand."""

    ARRAYS = ("runs", "first", "counts", "owners", "wanted", "may_be")

    def __init__(self, held_out: Documents, is_out: np.ndarray) -> None:
        runs, owners = _list_runs(held_out, is_out)
        runs, first, counts = np.unique(runs, return_index=True, return_counts=True)
        is_distinctive = counts <= MOST_OWNERS
        self.runs = runs[is_distinctive]
        self.first = first[is_distinctive]
        self.counts = counts[is_distinctive]
        self.owners = owners

        distinctive = np.bincount(
            owners[expand_ranges(self.first, self.counts)], minlength=len(held_out) or 1
        )
        self.wanted = np.where(
            distinctive >= LEAST_LEAK_RUNS,
            np.maximum(LEAST_LEAK_RUNS, LEAK_SHARE * distinctive),
            np.inf,
        )

        self.may_be = np.zeros(1 << 22, dtype=bool)
        self.may_be[self.runs >> np.uint64(42)] = True

    def save(self, path: Path) -> None:
        """Write the index to a file, for another process."""
        np.savez(path, **{name: getattr(self, name) for name in self.ARRAYS})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the index that was written to a file."""
        index = cls.__new__(cls)
        with np.load(path) as arrays:
            for name in cls.ARRAYS:
                setattr(index, name, arrays[name])
        return index

    def find_parts(self, words: WordHashes) -> np.ndarray:
        """Return which of these documents have at least half of their runs in held-out ones."""
        runs, starts = words.shingles(LEAK_WORDS)
        places, _ = self._look_up(runs)
        documents = np.searchsorted(starts, places, side="right") - 1
        found = np.bincount(documents, minlength=len(starts) - 1)
        return (found >= LEAST_LEAK_RUNS) & (found >= LEAK_SHARE * np.diff(starts))

    def find(self, words: WordHashes) -> tuple[np.ndarray, np.ndarray]:
        """Return pairs of a document of these and a held-out one that it holds."""
        runs, starts = words.shingles(LEAK_WORDS)
        places, positions = self._look_up(runs)
        if len(places) < LEAST_LEAK_RUNS:
            nothing = np.empty(0, dtype=np.int64)
            return nothing, nothing

        documents = np.searchsorted(starts, places, side="right") - 1
        pairs = np.unique(documents * len(self.runs) + positions)
        documents, positions = np.divmod(pairs, len(self.runs))
        owners = self.owners[expand_ranges(self.first[positions], self.counts[positions])]
        documents = np.repeat(documents, self.counts[positions])
        pairs, shared = np.unique(documents * len(self.wanted) + owners, return_counts=True)
        documents, owners = np.divmod(pairs, len(self.wanted))
        is_leak = shared >= self.wanted[owners]

        return documents[is_leak], owners[is_leak]

    def _look_up(self, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which of some runs are in the index, and where each is there."""
        places = np.flatnonzero(self.may_be[runs >> np.uint64(42)])
        if not len(self.runs):
            return places[:0], places[:0]
        # np.isin would sort the whole index, for every batch of documents.
        positions = np.searchsorted(self.runs, runs[places])
        positions[positions == len(self.runs)] = 0
        is_found = self.runs[positions] == runs[places]
        return places[is_found], positions[is_found]


def find_leaks(held_out: Documents, train: Documents) -> np.ndarray:
    """Return which documents of another text's training split hold much of a held-out one, or stand
    in one for the most part, (train documents,) bool.
    """
    stays = np.zeros(len(held_out), dtype=bool)
    index = LeakIndex(held_out, stays)
    short = ShortTexts(None)
    for start, stop in held_out.batches():
        numbers, keys = hash_words(held_out.read_range(start, stop)).hash_short()
        short.add(start + numbers, keys)
    short.mark_copies(stays)  # makes the index that is asked below

    is_leak = np.zeros(len(train), dtype=bool)
    for start, stop in train.batches():
        words = hash_words(train.read_range(start, stop))
        is_leak[start + index.find(words)[0]] = True
        is_leak[start:stop] |= index.find_parts(words)
        numbers, keys = words.hash_short()
        short.mark_leaks(start + numbers, keys, None, is_leak)
    return is_leak


def _list_runs(documents: Documents, is_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the runs of words of the documents that stay, each once a document, sorted, and whose
    they are.
    """
    all_runs: list[np.ndarray] = [np.empty(0, dtype=np.uint64)]
    all_owners: list[np.ndarray] = [np.empty(0, dtype=np.int64)]
    is_sampled = np.uint64(0)
    total = int(documents.ends[-1]) if len(documents) else 0
    while total >> int(is_sampled).bit_length() > 6 * MOST_HELD_OUT_RUNS:
        is_sampled = is_sampled << np.uint64(1) | np.uint64(1)

    for start, stop in documents.batches():
        words = hash_words(documents.read_range(start, stop))
        runs, starts = words.shingles(LEAK_WORDS)
        owners = np.repeat(np.arange(start, stop), np.diff(starts))
        is_long = np.diff(words.starts) >= LEAST_WORDS
        keeps = ~is_out[owners] & is_long[owners - start] & (runs & is_sampled == 0)
        all_runs.append(runs[keeps])
        all_owners.append(owners[keeps])

    runs = np.concatenate(all_runs)
    owners = np.concatenate(all_owners)
    order = np.lexsort((owners, runs))
    runs = runs[order]
    owners = owners[order]
    is_new = np.ones(len(runs), dtype=bool)
    is_new[1:] = (runs[1:] != runs[:-1]) | (owners[1:] != owners[:-1])

    return runs[is_new], owners[is_new]


def expand_ranges(first: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return first[0], first[0] + 1, ... (counts[0] of them), first[1], ... as one array."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - (ends - counts), counts)


def _is_of_one(train: Documents, document: int, held_out: Documents, owner: int) -> bool:
    """Return whether two passages are of one whole document, which may repeat itself."""
    if train.wholes is None or held_out.wholes is None:
        return False
    return bool(train.wholes[document] == held_out.wholes[owner])


def settle_leaks(
    leaks: Sequence[tuple[np.ndarray, np.ndarray]],
    held_out: Documents,
    train: Documents,
    found: NearCopies,
) -> None:
    """Leave out one side of each leak: the one that is the smaller part of its split, mostly the
    training document.

    Thus a book that quotes one held-out post stays, and a file that repeats the whole held-out text
    goes.
    """
    by_document: dict[int, list[int]] = {}
    for documents, owners in leaks:
        for document, owner in zip(documents.tolist(), owners.tolist(), strict=True):
            by_document.setdefault(document, []).append(owner)

    held_out_bytes = max(1, int(held_out.lengths.sum()))
    train_bytes = max(1, int(train.lengths.sum()))
    may_go = MOST_HELD_OUT_REMOVED * held_out_bytes

    for document in sorted(by_document, key=lambda number: (-int(train.lengths[number]), number)):
        owners = [
            owner
            for owner in by_document[document]
            if not found.left_out["validation"][owner]
            and not _is_of_one(train, document, held_out, owner)
        ]
        num_bytes = int(held_out.lengths[owners].sum())
        if not owners:
            continue
        if (
            int(train.lengths[document]) / train_bytes <= num_bytes / held_out_bytes
            or num_bytes > may_go
        ):
            found.left_out["train"][document] = True
        else:
            found.left_out["validation"][owners] = True
            may_go -= num_bytes
