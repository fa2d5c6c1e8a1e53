"""One reading of a source, and the record of it: what each file gave, and what was not read."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from lightlm.data.characters.file_checks import EXPANDED_BYTES
from lightlm.data.characters.personal import mask_personal
from lightlm.data.files.inputs import LeftOut, leave_out, shorten
from lightlm.data.files.record import DataRecord, LeftOutRecord, add_up
from lightlm.data.files.rows import Readable, Tally
from lightlm.data.passages import Piece, cut_documents
from lightlm.data.source import Source
from lightlm.data.writing import DocumentWriter
from lightlm.errors import DatasetError

MOST_EXPANDED = 50
"""Bytes of text for each byte of its files from which reading ends."""

WARNED_LEFT_OUT = 0.1
"""Fraction of the files, left out because they cannot be read, from which a person is warned."""


@dataclass
class Reading:
    """One pass over a split: its pieces, tallies and rows so far, and what was masked in them."""

    files: list[Readable]
    source: Source
    max_documents: int | None = None
    is_masked: bool = False
    tallies: list[Tally] = field(default_factory=list)
    num_bytes: int = 0
    masked: Counter[str] = field(default_factory=Counter)

    @property
    def num_rows(self) -> int:
        """Return how many rows were read."""
        return sum(tally.counts.rows for tally in self.tallies)

    @property
    def is_overlong(self) -> bool:
        """Return whether much more text was read than files of this size hold: they expand, or hold
        copies.
        """
        return self.num_bytes > max(
            EXPANDED_BYTES, MOST_EXPANDED * (self.source.about_bytes or EXPANDED_BYTES)
        )

    def pieces(self) -> Iterator[Piece]:
        """Yield the pieces, of at most `max_documents` documents."""
        pieces = cut_documents(
            self.files, self.source.about_bytes, self.tallies, is_named=self.source.is_named
        )
        for piece in pieces:
            if self.max_documents is not None and piece.document >= self.max_documents:
                self.tallies[-1].counts.rows -= 1
                return
            if self.is_masked:
                text, found = mask_personal(piece.text)
                self.masked += found
                piece = piece._replace(text=text)
            self.num_bytes += len(piece.text)
            yield piece


def describe_reading(
    source: Source, own: Reading, reading: Reading, train: DocumentWriter, held_out: DocumentWriter
) -> DataRecord:
    """Return the record of what was read and written.

    Raises:
        DatasetError: no file could be read; with the first one's reason.
    """
    raise_if_nothing_read(reading)
    record = DataRecord(
        notes=list(source.notes),
        warnings=list(source.warnings),
        train_bytes=train.num_bytes,
        validation_bytes=held_out.num_bytes,
    )

    left_out = list(source.left_out)
    sides = [(own, [held_out]), (reading, [train])] if own.files else [(reading, [train, held_out])]
    for one, writers in sides:
        number, num_bytes = _count_by_file(writers, len(one.files))
        record.documents += sum(number)
        for index, (file, tally) in enumerate(zip(one.files, one.tallies, strict=False)):
            tally.documents = number[index]
            tally.num_bytes = num_bytes[index]
            row = file.describe(tally)
            if tally.error:
                left_out.append(leave_out(row.path, tally.error))
            else:
                record.sources.append(row)
        for file in one.files[len(one.tallies) :]:
            left_out.append(LeftOut(file.describe(Tally()).path, "enough text was read before it"))

    record.masked = dict(own.masked + reading.masked)
    _sum_up(record, source, left_out, [*own.tallies, *reading.tallies])
    return record


def _count_by_file(writers: list[DocumentWriter], num_files: int) -> tuple[list[int], list[int]]:
    """Return how many documents and bytes of each file were written, on either side."""
    documents, files, lengths = (
        np.concatenate([getattr(writer, name) for writer in writers])
        for name in ("documents", "files", "lengths")
    )
    _, firsts = np.unique(documents, return_index=True)
    sizes = np.bincount(files, weights=lengths, minlength=num_files)
    return np.bincount(files[firsts], minlength=num_files).tolist(), sizes.astype(np.int64).tolist()


def _sum_up(
    record: DataRecord, source: Source, left_out: list[LeftOut], tallies: list[Tally]
) -> None:
    for row in record.sources:
        record.encodings[row.encoding] = record.encodings.get(row.encoding, 0) + 1
    record.replaced_bytes = sum(row.replaced_bytes for row in record.sources)
    record.empty_rows = sum(row.empty_rows for row in record.sources)
    record.column = (
        ", ".join(sorted({row.column for row in record.sources if row.column is not None})) or None
    )

    share = f"{record.held_out_share:.1%} of the bytes"
    how = (
        "chosen by a hash of each document"
        if source.held_out_by == "hash"
        else f"the split {source.held_out_by}"
    )

    record.split = f"{share}, {how}"
    unread = sum(bool(tally.error) for tally in tallies)
    if unread > WARNED_LEFT_OUT * (unread + len(record.sources)):
        record.warnings.append(f"{unread:,} files could not be read; `lightlm look` lists them")

    broken = sum(row.bad_rows for row in record.sources if not row.replaced_bytes)
    if broken:
        record.warnings.append(
            f"{broken:,} broken or torn {'row was' if broken == 1 else 'rows were'} left out"
        )

    if record.replaced_bytes:
        record.warnings.append(
            f"{record.replaced_bytes:,} bytes could not be decoded and became U+FFFD"
        )

    record.left_out = [LeftOutRecord(path=one.path, reason=one.reason) for one in shorten(left_out)]
    record.sources = add_up(record.sources)


def raise_if_nothing_read(reading: Reading) -> None:
    """Refuse a source of which no file could be read.

    Raises:
        DatasetError: with the first one's reason.
    """
    errors = [tally.error for tally in reading.tallies if tally.error]
    if errors and len(errors) == len(reading.tallies):
        more = f" (and {len(errors) - 1:,} more files)" if len(errors) > 1 else ""
        raise DatasetError(f"{errors[0]}{more}")
