"""Free space on the disk, checked before a stage begins to write."""

import shutil
from pathlib import Path

from lightlm.errors import StoreError
from lightlm.store.disk import explain_refusals, nearest

KEPT_FREE_BYTES = 64 << 20
"""Bytes that stages leave free: databases, journals and logs go on growing."""

ADVICE = (
    "free some space (`lightlm store` lists what is there, `lightlm store prune` drops what "
    "can be made again)"
)


def check_space(folder: Path, num_bytes: int, what: str) -> None:
    """Refuse to begin to write what the disk of `folder` has no room for.

    Raises:
        StoreError: fewer bytes are free than `num_bytes` and KEPT_FREE_BYTES.
    """
    if not num_bytes:
        return
    with explain_refusals(folder):
        free = shutil.disk_usage(nearest(folder)).free
    if free < num_bytes + KEPT_FREE_BYTES:
        raise StoreError(
            f"{what} will take about {num_bytes / 1e6:,.0f} MB under {folder} and "
            f"{KEPT_FREE_BYTES / 1e6:,.0f} MB stay "
            f"free, but only {free / 1e6:,.0f} MB are free; {ADVICE}, or give another LIGHTLM_HOME"
        )
