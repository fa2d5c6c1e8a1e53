"""The shipping state of a run: the cursor in its journal, and the ids that MLflow gave.

A state that is damaged, or that does not belong to its journal, counts as none: the run is sent
again from its start, and MLflow drops what it has.
"""

import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints, TypeAdapter

from lightlm.store.commit import write_file
from lightlm.store.remembered import read_checked
from lightlm.tracking.record import JOURNAL
from lightlm.tracking.registry import ModelVersion

STATE = "shipped.json"


class Shipped(BaseModel, extra="ignore", strict=True, allow_inf_nan=False):
    """The file's content. `cursor`: bytes of the journal that MLflow has accepted."""

    cursor: Annotated[int, Field(ge=0)] = 0
    run_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,256}$")] | None = None
    version: ModelVersion | None = None
    is_finished: bool = False
    refused: str | None = None
    system_metrics: bool = True


def read_shipped(folder: Path) -> Shipped:
    """Return how far a run was sent; the start where that cannot be known."""
    found = read_checked(folder / STATE, TypeAdapter(Shipped))
    is_valid = found is not None and _ends_a_line(folder / JOURNAL, found.cursor)
    return found if found is not None and is_valid else Shipped()


def write_shipped(folder: Path, shipped: Shipped) -> None:
    """Write how far a run was sent.

    Raises:
        StoreError: the disk refused.
    """
    write_file(folder / STATE, shipped.model_dump_json().encode())


def _ends_a_line(journal: Path, cursor: int) -> bool:
    """Return whether a record ends at the cursor, and not inside a record or past the end."""
    if cursor == 0:
        return True
    try:
        with journal.open("rb") as file:
            if cursor > file.seek(0, os.SEEK_END):
                return False
            file.seek(cursor - 1)
            return file.read(1) == b"\n"
    except OSError:
        return False
