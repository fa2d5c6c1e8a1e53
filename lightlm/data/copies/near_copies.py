"""Near copies among the documents of a subset: held-out text in the training text, and repeated
texts.

Two questions, two measures. A training document *leaks* if it holds half of a held-out document's
distinctive runs of five words: looked up exactly, in every training document. Two documents of one
split are *near copies* if two thirds of all of their runs of three words stand in both (about 80 %
of each): candidates by MinHash, verified where that leaves a doubt. Passages of one document are
never near copies of each other: a text may repeat itself.
"""

import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue]  (compiled, without stubs)

from lightlm.data.copies.leaks import LeakIndex, NearCopies, expand_ranges, settle_leaks
from lightlm.data.copies.shingles import LEAST_WORDS, hash_words
from lightlm.data.copies.short_texts import ShortTexts
from lightlm.data.copies.written import BATCH_BYTES, Documents
from lightlm.data.processes import Arrays, Job, Work, answer_in_order, serve
from lightlm.system import count_cores

COPY_WORDS = 3
COPY_SIMILARITY = 2 / 3
"""Runs of three words that stand in both of two documents, of those in either (Jaccard): 80 % of
each one's.
"""

BANDS = 21
ROWS = 3
"""MinHash values a band: of pairs with similarity 2/3, 0.7 and 0.8, 6, 2 and 0.01 of 10,000 are
missed.
"""

SURE_BANDS = 13
"""Equal bands of a pair that needs no other proof: 1 of 400 with similarity 2/3 has so many, 1 of
10^7 with 0.5.
"""

VALUES = 64
"""MinHash values a document; one more than the bands take, as a power of two is made faster."""

PACK = struct.Struct(f"={VALUES}I").pack

MOST_SKETCHES = 3_000_000
"""Documents of a split that are compared with each other, at 92 bytes of memory each."""

MOST_PAIR_RUNS = 256
"""About as many runs of words are compared of a pair; a longer document's are a sample by their
hashes.
"""

MOST_REFUTED = 4_000_000
"""Pairs that are remembered as no near copies, so that they are not compared again."""

SEED = 1

INDEX = ".leaks.npz"
"""File of the held-out runs of words, for the children."""

MOST_CHILDREN = 3
LEAST_BYTES_PER_CHILD = 16 << 20
"""Processes that help to read a split, and bytes of it from which one pays for its start."""


def find_near_copies(folder: Path, *, max_seconds: float | None = None) -> NearCopies:
    """Return the near copies among the documents in `folder`, the same ones every time.

    Held-out text is looked for in the whole training text. Near copies inside of the training text
    are looked for until `max_seconds` are over; then the result says so.
    """
    deadline = None if max_seconds is None else time.monotonic() + max_seconds
    held_out = Documents(folder, "validation")
    train = Documents(folder, "train")
    try:
        return _find(held_out, train, deadline)
    finally:
        held_out.close()
        train.close()


def _find(held_out: Documents, train: Documents, deadline: float | None) -> NearCopies:
    found = NearCopies(
        {
            "validation": np.zeros(len(held_out), dtype=bool),
            "train": np.zeros(len(train), dtype=bool),
        }
    )

    sketches = Sketches(len(held_out))
    short = ShortTexts(held_out.wholes)
    for start, rows, bands, _, _, shorts, keys in _read(held_out, None):
        sketches.add(start + rows, bands)
        short.add(start + shorts, keys)

    sketches.mark_copies(held_out, found.left_out["validation"], None)
    short.mark_copies(found.left_out["validation"])

    index = LeakIndex(held_out, found.left_out["validation"])
    sketches = Sketches(len(train))
    leaks: list[tuple[np.ndarray, np.ndarray]] = []
    ours = ShortTexts(train.wholes)

    for start, rows, bands, documents, owners, shorts, keys in _read(train, index):
        sketches.add(start + rows, bands)
        leaks.append((start + documents, owners))
        short.mark_leaks(start + shorts, keys, train.wholes, found.left_out["train"])
        ours.add(start + shorts, keys)

    settle_leaks(leaks, held_out, train, found)

    ours.mark_copies(found.left_out["train"])
    finished = sketches.mark_copies(train, found.left_out["train"], deadline)

    if not finished:
        found.not_looked_at = (
            "the time for near copies inside of the training text was over before all were compared"
        )
    elif sketches.num_missed:
        found.not_looked_at = (
            f"{sketches.num_missed:,} training documents after the first {MOST_SKETCHES:,} were "
            "compared with the held-out text alone"
        )

    return found


def start_reading(folder: str, split: str, has_index: bool) -> Work:
    """Return the function of ranges of a split's documents.

    [first, end] -> [first, rows with a sketch, bands, leaks and whose they are, short texts and
    their keys].
    """
    documents = Documents(Path(folder), split)
    index = LeakIndex.load(Path(folder) / INDEX) if has_index else None
    return lambda request: _read_range(documents, index, request)


def _read_range(documents: Documents, index: LeakIndex | None, request: Arrays) -> Arrays:
    start, stop = request[0].tolist()
    words = hash_words(documents.read_range(start, stop))
    rows = np.flatnonzero(np.diff(words.starts) >= LEAST_WORDS)
    bands = _sketch(*words.shingles(COPY_WORDS), rows)
    leaks = (rows[:0], rows[:0]) if index is None else index.find(words)
    return [request[0][:1], rows, bands, *leaks, *words.hash_short()]


def _read(documents: Documents, index: LeakIndex | None) -> Iterator[Arrays]:
    """Yield what each batch of documents holds, in order, by a process a core."""
    num_bytes = int(documents.ends[-1]) if len(documents) else 0
    num_children = min(count_cores() - 1, MOST_CHILDREN, num_bytes // LEAST_BYTES_PER_CHILD)
    path = documents.folder / INDEX
    arguments = (str(documents.folder), documents.split, index is not None)

    def start(*_: object) -> Work:
        return lambda request: _read_range(documents, index, request)

    job = Job("lightlm.data.copies.near_copies", start, arguments)
    requests = ([np.array(batch)] for batch in documents.batches())
    try:
        if index is not None and num_children:
            index.save(path)
        yield from answer_in_order(job, requests, num_children, works_here=True)
    finally:
        path.unlink(missing_ok=True)


def _sketch(runs: np.ndarray, starts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the bands (one a row, of uint32) of MinHash of the documents `rows`."""
    if not len(rows):
        return np.empty((BANDS, 0), dtype=np.uint32)

    counts = np.diff(starts)
    if len(rows) < len(counts):
        is_sketched = np.zeros(len(counts), dtype=bool)
        is_sketched[rows] = True
        runs = runs[np.repeat(is_sketched, counts)]
        starts = np.concatenate(([0], np.cumsum(counts[rows])))

    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        runs, starts.astype(np.uint64), VALUES, SEED
    )
    # Packed row by row, as numpy takes twice as long to make an array of lists.
    packed = b"".join(PACK(*row) for row in matrix.to_rows())
    values = np.frombuffer(packed, dtype=np.uint32).reshape(len(rows), VALUES)
    values = values[:, : BANDS * ROWS].astype(np.uint64).reshape(len(rows), BANDS, ROWS)
    bands = values[:, :, 0]

    for row in range(1, ROWS):
        bands = (bands ^ (bands >> np.uint64(29))) * np.uint64(0xBF58_476D_1CE4_E5B9) + values[
            :, :, row
        ]

    bands *= np.uint64(0x94D0_49BB_1331_11EB)
    return (bands >> np.uint64(32)).astype(np.uint32).T


class Sketches:
    """MinHash bands of many documents, and the near copies among these."""

    def __init__(self, num_documents: int) -> None:
        most = min(num_documents, MOST_SKETCHES)
        self._bands = np.empty((BANDS, most), dtype=np.uint32)
        self._numbers = np.empty(most, dtype=np.int64)
        self._size = 0
        self.num_missed = 0

    def add(self, numbers: np.ndarray, bands: np.ndarray) -> None:
        """Keep the bands of documents, given by their numbers."""
        room = len(self._numbers) - self._size
        self.num_missed += max(0, len(numbers) - room)
        stop = self._size + min(room, len(numbers))
        self._bands[:, self._size : stop] = bands[:, :room]
        self._numbers[self._size : stop] = numbers[:room]
        self._size = stop

    def mark_copies(self, documents: Documents, is_out: np.ndarray, deadline: float | None) -> bool:
        """Mark in `is_out` each near copy of an earlier document that stays; return False if time
        was over first.
        """
        refuted = np.empty(0, dtype=np.int64)
        numbers = self._numbers[: self._size]
        for band in range(BANDS):
            for with_first in (True, False):
                pairs = self._list_candidates(band, ~is_out[numbers], with_first=with_first)
                pairs = pairs[~np.isin(pairs, refuted)]
                if documents.wholes is not None:
                    wholes = documents.wholes[numbers]
                    pairs = pairs[wholes[pairs // self._size] != wholes[pairs % self._size]]
                if not len(pairs):
                    break
                if deadline is not None and time.monotonic() > deadline:
                    return False
                earlier, later = np.divmod(pairs, self._size)
                is_copy = self._count_equal_bands(earlier, later) >= SURE_BANDS
                unsure = np.flatnonzero(~is_copy)
                verified = _verify_all(
                    documents, numbers[earlier[unsure]], numbers[later[unsure]], deadline
                )
                if verified is None:
                    return False
                is_copy[unsure] = verified
                _mark(numbers[earlier[is_copy]], numbers[later[is_copy]], is_out)
                refuted = np.union1d(
                    refuted if len(refuted) < MOST_REFUTED else refuted[:0], pairs[~is_copy]
                )

        return True

    def _list_candidates(self, band: int, stays: np.ndarray, *, with_first: bool) -> np.ndarray:
        """Return pairs of sketches with an equal band, as earlier * number of sketches + later,
        sorted.

        Each that stays is paired with the first one of its band's value, or with the one before it.
        """
        places = np.flatnonzero(stays)
        keys = self._bands[band, places].astype(np.uint64) << np.uint64(32) | places.astype(
            np.uint64
        )
        keys.sort()
        places = (keys & np.uint64(0xFFFF_FFFF)).astype(np.int64)
        is_first = np.ones(len(keys), dtype=bool)
        is_first[1:] = keys[1:] >> np.uint64(32) != keys[:-1] >> np.uint64(32)

        later = np.flatnonzero(~is_first)
        firsts = np.maximum.accumulate(np.where(is_first, np.arange(len(keys)), 0))
        earlier = firsts[later] if with_first else later - 1
        return np.sort(places[earlier] * self._size + places[later])

    def _count_equal_bands(self, earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
        equal = np.zeros(len(earlier), dtype=np.uint8)
        for band in self._bands:
            equal += band[earlier] == band[later]
        return equal


def _mark(earlier: np.ndarray, later: np.ndarray, is_out: np.ndarray) -> None:
    """Mark the later document of each pair whose earlier one stays."""
    for place in np.argsort(later, kind="stable").tolist():
        if not is_out[earlier[place]]:
            is_out[later[place]] = True


def _verify_all(
    documents: Documents, earlier: np.ndarray, later: np.ndarray, deadline: float | None
) -> np.ndarray | None:
    """Return which pairs are near copies, or None if time was over first."""
    if not len(later):
        return np.empty(0, dtype=bool)

    sizes = np.cumsum(documents.lengths[earlier] + documents.lengths[later])
    batches = []
    start = 0

    while start < len(sizes):
        before = int(sizes[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(sizes, before + BATCH_BYTES, side="right")))
        batches.append((start, stop))
        start = stop

    def work(batch: tuple[int, int]) -> np.ndarray | None:
        if deadline is not None and time.monotonic() > deadline:
            return None
        return _verify(documents, earlier[slice(*batch)], later[slice(*batch)])

    with ThreadPoolExecutor(count_cores()) as pool:
        answers = list(pool.map(work, batches))
    if any(answer is None for answer in answers):
        return None

    return np.concatenate([answer for answer in answers if answer is not None])


def _verify(documents: Documents, earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
    """Return which pairs have so many of their runs of words in common that they are
    near copies.
    """
    numbers, places = np.unique(np.concatenate((earlier, later)), return_inverse=True)
    runs, starts = hash_words([documents[number] for number in numbers.tolist()]).shingles(
        COPY_WORDS
    )
    counts = np.diff(starts)
    first = places[: len(earlier)]
    second = places[len(earlier) :]

    longest = np.maximum(counts[first], counts[second])
    halvings = np.maximum(0, np.ceil(np.log2(np.maximum(1, longest) / MOST_PAIR_RUNS))).astype(
        np.uint64
    )
    masks = (np.uint64(1) << halvings) - np.uint64(1)

    def pick(side: np.ndarray) -> np.ndarray:
        """Return the sampled runs of a pair's document, below the number of the pair, each once."""
        pairs = np.repeat(np.arange(len(side), dtype=np.uint64), counts[side])
        values = runs[expand_ranges(starts[side], counts[side])]
        is_sampled = values & masks[pairs] == 0
        return np.unique(pairs[is_sampled] << np.uint64(44) | values[is_sampled] >> np.uint64(20))

    ours = pick(first)
    theirs = pick(second)
    both = np.intersect1d(ours, theirs, assume_unique=True)
    num_both, num_ours, num_theirs = (
        np.bincount((values >> np.uint64(44)).astype(np.int64), minlength=len(earlier))
        for values in (both, ours, theirs)
    )

    return num_both >= COPY_SIMILARITY * np.maximum(1, num_ours + num_theirs - num_both)


if __name__ == "__main__":
    serve(start_reading)
