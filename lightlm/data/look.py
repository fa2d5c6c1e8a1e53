"""A look at a data set: what would be trained on and held out, with examples and the oddest
documents.

Nothing is trained and nothing is kept: the subset is made in a temporary folder by the same
functions as a run's.
"""

import statistics
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from lightlm.data.copies.written import Documents
from lightlm.data.corpus import find_corpus_url
from lightlm.data.files.inputs import find_inputs
from lightlm.data.files.local_path import find_local_path
from lightlm.data.files.record import DataRecord
from lightlm.data.files.rows import SourceFile, Tally
from lightlm.data.parts import keep_in_folder, read_parts
from lightlm.data.quality import Quality, measure_quality
from lightlm.data.source import open_source
from lightlm.data.subset import describe_folder
from lightlm.errors import DatasetError
from lightlm.params import DatasetParams
from lightlm.store.lock import ignore

LOOKED_AT_BYTES = 1 << 26
"""Bytes of training text that a look reads, unless dataset.max_bytes says otherwise."""

GLANCED_AT_BYTES = 8_000_000
"""Bytes up to which a data set is looked at when it is chosen; it takes a second or two."""

EXCERPT_CHARACTERS = 240
SAMPLED = 2000
"""Documents among which the oddest are looked for."""

ODDEST = 3
ODD_DISTANCE = 4.0
"""Median absolute deviations from the median from which a document is odd."""

LEAST_ODD_BYTES = 64
"""Bytes below which a document's measures say nothing."""


_ASCII = bytes(range(0x80))
_BEYOND_ASCII = bytes(range(0x80, 0x100))
_NO_ASCII_LETTERS = bytes(byte for byte in range(0x100) if not bytes([byte]).isalpha())


class Example(BaseModel, extra="forbid"):
    """A document, or a passage of one: where it stands, its beginning, its bytes, and why it is
    shown.
    """

    place: str
    text: str
    bytes: int
    why: str = ""


class Look(BaseModel, extra="forbid"):
    """What a look at a data set found."""

    name: str
    source: str
    is_partial: bool
    record: DataRecord
    quality: Quality
    examples: list[Example]


def look_at(params: DatasetParams, report: Callable[[str], None] = ignore) -> Look:
    """Return what would be made of the data set that `params` name.

    Raises:
        DatasetError: as a run would.
    """
    if find_corpus_url(params.source) is not None:
        raise DatasetError(
            f"{params.source} is tokenized already; look at the text that it was made of"
        )
    source = open_source(params, report)
    most = params.max_bytes or LOOKED_AT_BYTES
    limited = params.model_copy(update={"max_bytes": most})
    with tempfile.TemporaryDirectory(prefix="lightlm-look-") as folder:
        keep = keep_in_folder(Path(folder))
        source = read_parts(source, most, params.max_validation_bytes, keep, report)
        subset = describe_folder(Path(folder), limited, source)
        train = Documents(subset.folder, "train")
        held_out = Documents(subset.folder, "validation")
        examples = [
            *_show_places(train),
            _excerpt(held_out[0], "held out"),
            *_show_oddest(train),
        ]
        quality = measure_quality(train)
        train.close()
        held_out.close()

    is_partial = source.is_part or subset.num_bytes >= most
    record = subset.record
    if is_partial:
        record.notes.append(
            f"reading ended after {subset.num_bytes / 1e6:,.0f} MB; a run reads what its hours need"
        )

    return Look(
        name=source.name,
        source=subset.source,
        is_partial=is_partial,
        record=record,
        quality=quality,
        examples=examples,
    )


def glance_at(params: DatasetParams) -> Look | None:
    """Return a look at a small local data set; None where looking would take more than a moment.

    Raises:
        DatasetError: as a run would.
    """
    if find_local_path(params.source) is None:
        return None
    about = open_source(params).about_bytes
    return look_at(params) if about is not None and about <= GLANCED_AT_BYTES else None


def read_documents(source: str, column: str | None, encoding: str | None) -> list[bytes]:
    """Return the UTF-8 of the documents of a file or folder, read as a run reads them.

    Raises:
        DatasetError: it is not there, holds no text, or its encoding is not sure.
    """
    path = find_local_path(source)
    if path is None:
        raise DatasetError(f"{source} does not exist; give a file or folder of text")

    inputs = find_inputs(path)
    documents: list[bytes] = []
    for file in inputs.files:
        lines: list[str] = []
        for row in SourceFile(file, column, encoding).rows(Tally()):
            if row is not None:
                lines.append(row)
                continue
            document = "".join(lines)
            lines = []
            if document.strip():
                documents.append(document.encode())

    if not documents:
        raise DatasetError(f"{source} holds no text; give a file with some")

    return documents


def _show_places(train: Documents) -> Iterator[Example]:
    """Yield the first, the middle and the last training document."""
    count = len(train)
    places = {0: "start", count // 2: "middle", count - 1: "end"}
    yield from (_excerpt(train[index], place) for index, place in places.items())


def _show_oddest(train: Documents) -> Iterator[Example]:
    """Yield the training documents that are furthest from the others in one of some measures."""
    sampled = np.arange(0, len(train), max(1, len(train) // SAMPLED))
    sampled = sampled[train.lengths[sampled] >= LEAST_ODD_BYTES]
    kept = [train[index] for index in sampled.tolist()]

    if len(kept) < 2 * ODDEST:
        return

    found: list[tuple[float, int, str]] = []
    for measure, tell in MEASURES:
        values = [measure(document) for document in kept]
        middle = statistics.median(values)
        spread = statistics.median(abs(value - middle) for value in values) or 1e-3
        index = max(range(len(kept)), key=lambda i: abs(values[i] - middle))
        found.append((abs(values[index] - middle) / spread, index, tell(values[index], middle)))

    shown: set[int] = set()
    for distance, index, why in sorted(found, reverse=True):
        if distance >= ODD_DISTANCE and index not in shown and len(shown) < ODDEST:
            shown.add(index)
            yield _excerpt(kept[index], "odd", why)


def _excerpt(document: bytes, place: str, why: str = "") -> Example:
    text = document[: 4 * EXCERPT_CHARACTERS].decode("utf-8", "ignore")[:EXCERPT_CHARACTERS]
    return Example(place=place, text=text, bytes=len(document), why=why)


def _density(document: bytes) -> float:
    return len(zlib.compress(document[:65_536], 1)) / min(len(document), 65_536)


def _letters(document: bytes) -> float:
    head = document[:65_536]
    beyond = head.translate(None, _ASCII).decode("utf-8", "ignore")
    num_ascii = len(head.translate(None, _BEYOND_ASCII))
    letters = len(head.translate(None, _NO_ASCII_LETTERS)) + sum(map(str.isalpha, beyond))
    return letters / max(1, num_ascii + len(beyond))


def _word_length(document: bytes) -> float:
    text = document[:65_536]
    return len(text) / (1 + len(text.split()))


MEASURES: tuple[tuple[Callable[[bytes], float], Callable[[float, float], str]], ...] = (
    (_density, lambda value, middle: f"compresses to {value:.0%}, the others to {middle:.0%}"),
    (_letters, lambda value, middle: f"{value:.0%} letters, the others {middle:.0%}"),
    (_word_length, lambda value, middle: f"{value:.1f} bytes a word, the others {middle:.1f}"),
)
