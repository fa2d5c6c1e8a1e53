"""The two sides of a text: which documents are held out, which copies are left out, and the record
of both.

A document's side depends on a hash of its text alone, so that it does not change when others come.
The share that is held out is counted in bytes; no copy of a held-out document is trained on.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

import numpy as np

from lightlm.data.characters.file_checks import EXPANDED_BYTES
from lightlm.data.copies.duplicates import MOST_DIGESTS, DigestTable, digest_of
from lightlm.data.copies.near_copies import find_near_copies
from lightlm.data.files.record import DataRecord
from lightlm.data.passages import TINY_PASSAGE_BYTES, Piece
from lightlm.data.reading import Reading, describe_reading, raise_if_nothing_read
from lightlm.data.source import Source
from lightlm.data.writing import DocumentWriter
from lightlm.errors import DatasetError
from lightlm.params import DatasetParams

Split = Literal["train", "validation"]

SCANNED_BYTES = 1 << 24
SLOW_SCANNED_BYTES = 1 << 18
"""Bytes of text, and of a slow source, that are read to choose what is held out; of more, the hash
alone decides.
"""

MOST_HELD_OUT = 0.1
MOST_HELD_OUT_TINY = 0.25
TINY_BYTES = 20_000
"""Fraction of the bytes that is held out at most, and that of a text of less than TINY_BYTES."""

MOST_COPIES = 8
"""Times as much text is read to choose what is held out, where most of it are copies."""

MOST_BAD_SHARE = 0.01
"""Fraction of rows with undecodable bytes, or of such bytes, from which a text is refused."""

NEAR_SECONDS_SHARE = 1.0
"""Seconds that the search for near copies may take for each second that reading took; but at least
NEAR_SECONDS.
"""

NEAR_SECONDS = 5.0

OWN_DOCUMENTS = 1 << 40
"""Number of the first document of a split by name."""


class Limits(NamedTuple):
    """What ends the reading (documents, bytes of training and of held-out text), and whether copies
    are dropped.
    """

    max_documents: int | None
    max_bytes: int | None
    max_validation_bytes: int
    validation_fraction: float
    drops_copies: bool


@dataclass
class Built:
    """What was written."""

    record: DataRecord
    num_rows: int
    num_validation_pieces: int
    validation_sha256: str
    is_running_text: bool


@dataclass
class HeldOut:
    """Which documents are held out: those chosen by digest, where all were looked at, else those
    below a fraction.
    """

    fraction: float
    chosen: set[bytes] | None = None

    def holds_out(self, digest: bytes) -> bool:
        """Return whether the document of a digest is held out."""
        return (
            digest[:16] in self.chosen
            if self.chosen is not None
            else place_of(digest) < self.fraction
        )


def place_of(digest: bytes) -> float:
    """Return where in [0, 1) a document's hash falls; equal documents fall on the same side."""
    return int.from_bytes(digest[:8], "big") / 2**64


def most_held_out(total: int, wanted: float) -> float:
    """Return the fraction of `total` bytes that is held out at most, where a person wants the
    fraction `wanted`.
    """
    return max(MOST_HELD_OUT_TINY if total < TINY_BYTES else MOST_HELD_OUT, wanted)


def choose_held_out(
    pieces: Iterator[Piece], source: Source, limits: Limits
) -> tuple[HeldOut, list[tuple[Piece, bytes]]]:
    """Return what is held out of a source without a split of its own, and the pieces read for that
    with their digests.

    Of a small source all documents are looked at: in the order of their hashes, until the fraction
    of the bytes is reached.
    """
    wanted = limits.validation_fraction
    longest = SCANNED_BYTES if source.bytes_per_second is None else SLOW_SCANNED_BYTES
    if limits.max_bytes is not None:
        longest = min(longest, 2 * limits.max_bytes)

    sizes: dict[bytes, int] = {}
    total = 0
    num_bytes = 0
    looked_at: list[tuple[Piece, bytes]] = []

    for piece in pieces:
        digest = digest_of(piece.text)
        looked_at.append((piece, digest))
        num_bytes += len(piece.text)
        total += len(piece.text) if digest not in sizes else 0
        sizes[digest] = len(piece.text)
        if total > longest:
            return HeldOut(wanted), looked_at
        if num_bytes > MOST_COPIES * longest:
            break

    most = most_held_out(total, wanted) * total
    below = {digest for digest in sizes if place_of(digest) < wanted}
    share = sum(sizes[digest] for digest in below)
    if not 0.5 * wanted * total <= share <= most or len(below) == len(sizes):
        below = _fill(sizes, wanted * total, most)

    return HeldOut(wanted, {digest[:16] for digest in below}), looked_at


def _fill(sizes: dict[bytes, int], wanted: float, most: float) -> set[bytes]:
    """Return documents in the order of their hashes whose bytes come to about `wanted`, never to
    more than `most`.
    """
    taken: set[bytes] = set()
    size = 0
    for digest in sorted(sizes):
        if size + sizes[digest] <= most and len(taken) + 1 < len(sizes):
            taken.add(digest)
            size += sizes[digest]
        if size >= wanted:
            break
    if not taken and len(sizes) > 1:
        taken = {min(sizes, key=lambda digest: (sizes[digest], digest))}
    return taken


def build_subset(folder: Path, params: DatasetParams, source: Source, limits: Limits) -> Built:
    """Write both splits' documents into `folder`.

    Raises:
        DatasetError: too little text, or text that cannot be the one meant.
    """
    own = Reading(source.splits.get("validation", []), source, is_masked=params.mask)
    reading = Reading(source.splits["train"], source, limits.max_documents, params.mask)
    with DocumentWriter(folder, "validation") as held_out, DocumentWriter(folder, "train") as train:
        copies = CopyFilter(limits, train, held_out)
        started = time.monotonic()
        pieces = reading.pieces()
        looked_at: list[tuple[Piece, bytes]] = []
        if own.files:
            _write_own_split(own, copies, limits)
            chosen = HeldOut(0.0, set())
        else:
            chosen, looked_at = choose_held_out(pieces, source, limits)
        if limits.max_bytes is not None and reading.num_bytes >= limits.max_bytes:
            # The subset may end among the pieces looked at; the record counts what was read to
            # that place.
            looked_at = []
            reading = Reading(source.splits["train"], source, limits.max_documents, params.mask)
            pieces = reading.pieces()

        digested = ((piece, digest_of(piece.text)) for piece in pieces)
        for piece, digest in chain(looked_at, digested):
            if not chosen.holds_out(digest):
                copies.add("train", piece, digest)
            elif (
                held_out.num_bytes + len(piece.text) <= limits.max_validation_bytes
                or not held_out.num_bytes
            ):
                copies.add("validation", piece, digest)
            if limits.max_bytes is not None and train.num_bytes >= limits.max_bytes:
                break
            if reading.is_overlong:
                copies.note = (
                    f"reading ended after {reading.num_bytes / 1e6:,.0f} MB, of which "
                    "most were copies"
                )
                break
        copies.drop_near(folder, time.monotonic() - started)
        if not own.files:
            _return_surplus(held_out, train, limits)
        record = describe_reading(source, own, reading, train, held_out)
        copies.describe(record)
        _check_enough(params, source, record, train.num_pieces, held_out.num_pieces)
        _check_decoded(params, record)
        return Built(
            record, reading.num_rows, held_out.num_pieces, held_out.sha256(), not train.ends.all()
        )


class CopyFilter:
    """Writes documents but for copies: of any document, or with dataset.duplicates=keep of held-out
    ones alone.
    """

    def __init__(self, limits: Limits, train: DocumentWriter, held_out: DocumentWriter) -> None:
        self.writers: dict[Split, DocumentWriter] = {"train": train, "validation": held_out}
        self.drops_copies = limits.drops_copies
        self.exact = self.near = self.num_bytes = 0
        self.note = ""
        self._digests = DigestTable()

    def add(self, split: Split, piece: Piece, digest: bytes) -> None:
        """Write a piece of a digest, unless it is a copy, apart from white space, of one that was
        written.
        """
        is_looked_up = self.drops_copies or split == "train"
        if is_looked_up and digest in self._digests:
            self.exact += 1
            self.num_bytes += len(piece.text)
            return
        self.writers[split].add(piece)
        has_room = self.drops_copies and len(self._digests) < MOST_DIGESTS
        if has_room or split == "validation":
            self._digests.add(digest)

    def drop_near(self, folder: Path, seconds: float) -> None:
        """Drop near copies from what was written to `folder`, in about the time that reading took:
        `seconds`.
        """
        if not self.drops_copies:
            return

        wholes = [writer.write_wholes() for writer in self.writers.values()]
        found = find_near_copies(
            folder, max_seconds=max(NEAR_SECONDS, NEAR_SECONDS_SHARE * seconds)
        )
        for path in wholes:
            path.unlink()

        self.note = self.note or found.not_looked_at or ""
        for split, writer in self.writers.items():
            gone = found.left_out[split]
            self.near += int(gone.sum())
            self.num_bytes += int(writer.lengths[gone].sum())
            writer.drop(gone)

    def describe(self, record: DataRecord) -> None:
        """Put the numbers of copies into the record."""
        record.exact_duplicates = self.exact
        record.near_duplicates = self.near
        record.duplicate_bytes = self.num_bytes
        if self.note:
            record.notes.append(self.note)


def glance(source: Source, params: DatasetParams, context_length: int | None) -> None:
    """Refuse a small source at once where it has too little text.

    Raises:
        DatasetError: with what to do.
    """
    wanted = 1 if "validation" in source.splits else 2
    least = (context_length or 0) + 1
    digests: set[bytes] = set()
    num_bytes = 0
    reading = Reading(source.splits["train"], source)

    for piece in reading.pieces():
        digests.add(digest_of(piece.text))
        num_bytes += len(piece.text)
        if (len(digests) >= wanted and num_bytes >= least) or num_bytes > EXPANDED_BYTES:
            break

    raise_if_nothing_read(reading)
    if len(digests) < wanted:
        _refuse_too_little(
            params, source, sum(tally.counts.empty for tally in reading.tallies), len(digests)
        )

    if num_bytes < least:
        raise DatasetError(
            f"{params.source} has {num_bytes:,} bytes of text, fewer than model.context_length "
            f"{context_length} tokens can be made of; give more text or a smaller context_length"
        )


def _return_surplus(held_out: DocumentWriter, train: DocumentWriter, limits: Limits) -> None:
    """Train on what is held out beyond the most: near copies left the training text, and so it
    became smaller.

    No near copy of these documents is trained on by now, nor held out.
    """
    total = held_out.num_bytes + train.num_bytes
    if held_out.num_bytes <= most_held_out(total, limits.validation_fraction) * total:
        return
    before = np.cumsum(held_out.lengths) - held_out.lengths
    surplus = before > limits.validation_fraction * total
    surplus[0] = False
    for piece in held_out.take(surplus):
        train.add(piece)


def _write_own_split(own: Reading, copies: CopyFilter, limits: Limits) -> None:
    held_out = copies.writers["validation"]
    for piece in own.pieces():
        if (
            held_out.num_bytes + len(piece.text) > limits.max_validation_bytes
            and held_out.num_bytes
        ):
            return
        # Its documents are others than those of the training split with the same numbers.
        copies.add(
            "validation",
            piece._replace(document=piece.document + OWN_DOCUMENTS),
            digest_of(piece.text),
        )


def _check_decoded(params: DatasetParams, record: DataRecord) -> None:
    """Refuse text of which more than a little could not be decoded.

    Raises:
        DatasetError: with the option that settles it.
    """
    for row in record.sources:
        size = max(1, row.bytes + row.replaced_bytes)
        share = max(row.bad_rows / max(1, row.rows), row.replaced_bytes / size)
        if row.replaced_bytes and share > MOST_BAD_SHARE and params.encoding is None:
            raise DatasetError(
                f"{row.path}: {share:.0%} of the rows hold bytes that are not {row.encoding} "
                f"({row.replaced_bytes:,} bytes in {row.bad_rows:,} rows); name its encoding, as "
                f"--set dataset.encoding=cp1252; --set dataset.encoding={row.encoding} takes them "
                "as U+FFFD"
            )


def _check_enough(
    params: DatasetParams, source: Source, record: DataRecord, train: int, held_out: int
) -> None:
    if not train or not held_out:
        _refuse_too_little(params, source, record.empty_rows, train + held_out)


def _refuse_too_little(params: DatasetParams, source: Source, empty: int, number: int) -> NoReturn:
    found = f"{empty:,} empty rows, {number:,} different with text"
    if not number:
        raise DatasetError(
            f"{params.source} holds no text ({found}); give a data set with text in it"
        )

    unit = (
        f"passages of {TINY_PASSAGE_BYTES:,} bytes, each ended by a line's end,"
        if source.is_plain_text
        else "different documents"
    )
    raise DatasetError(
        f"{params.source} is too small ({found}); at least 2 {unit} are needed, one to train on "
        "and one held out"
    )
