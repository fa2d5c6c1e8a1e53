"""How far a run's record was sent to MLflow: the cursor in its journal, and the ids that MLflow
gave.

A state that is damaged, or that does not belong to the journal beside it, counts as none: the run
is sent anew from its start, and MLflow drops what it has.
"""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

from lightlm.store.remembered import read_checked
from lightlm.tracking.recorder import JOURNAL
from lightlm.tracking.registry import ModelVersion

STATE = "shipped.json"


class Shipped(BaseModel):
    """What stands in the file. `cursor` is a number of bytes; all before it was accepted."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    cursor: Annotated[int, Field(ge=0)] = 0
    run_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,256}$")] | None = None
    version: ModelVersion | None = None
    is_finished: bool = False
    refused: str | None = None
    system_metrics: bool = True


def read_state(folder: Path) -> dict[str, Any]:
    """Return how far the sending of a run has come; the start where that cannot be known."""
    found = read_checked(folder / STATE, TypeAdapter(Shipped))
    if found is None or not _ends_a_line(folder / JOURNAL, found.cursor):
        found = Shipped()
    return found.model_dump(mode="json")


def _ends_a_line(journal: Path, cursor: int) -> bool:
    """Return whether a record ends at the cursor; behind the journal's end, or inside a record,
    none does.
    """
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
