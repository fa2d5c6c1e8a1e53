"""The held-out text that the loss of a smaller export is measured on."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lightlm.data.subset import KIND, open_subset
from lightlm.errors import InputError, StoreError
from lightlm.tracking.registry import ModelVersion

MOST_BYTES = 1 << 18
"""Bytes of text that a score of an export reads."""

MOST_OPERATIONS = 2e13
"""Operations that such a score may take: two minutes on two cores, whatever the model's size."""

BYTES_PER_TOKEN = 4.0
"""Bytes of text per token, about, to turn operations into bytes."""


def find_held_out(home: Path, version: ModelVersion) -> list[bytes]:
    """Return the first documents that the version was scored on, at most `MOST_BYTES`.

    Raises:
        InputError: the text is not on this machine any more.
    """
    digest = version.tags.get("dataset_digest", "")
    try:
        subset = open_subset(home / "store" / KIND / digest) if digest else None
    except StoreError:
        subset = None
    if subset is None:
        raise InputError(
            f"the held-out text of {version.name} {version.version} is not on this machine, and a "
            "smaller type is measured on text; give one with --text FILE"
        )
    return list(take_bytes(subset.read_documents("validation"), MOST_BYTES))


def read_sample(path: Path) -> list[bytes]:
    """Return the first documents of a person's own text, at most `MOST_BYTES`.

    Raises:
        DatasetError: there is no text.
    """
    from lightlm.data.look import read_documents

    return list(take_bytes(read_documents(str(path), None, None), MOST_BYTES))


def limit_sample(documents: Sequence[bytes], num_parameters: int) -> list[bytes]:
    """Return as many first documents as a model of this size reads in about two minutes."""
    affordable = int(MOST_OPERATIONS / (2 * num_parameters) * BYTES_PER_TOKEN)
    return list(take_bytes(documents, min(MOST_BYTES, affordable)))


def take_bytes(documents: Iterable[bytes], most: int) -> Iterator[bytes]:
    """Yield documents until there are `most` bytes; the last is cut between two characters."""
    for document in documents:
        piece = document[:most].decode("utf-8", "ignore").encode()
        if piece:
            yield piece
        most -= len(document)
        if most <= 0:
            return
