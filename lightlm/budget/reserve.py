"""The time kept for what follows training, learnt from earlier runs on this machine.

Owns a short history under LIGHTLM_HOME of how long registration and the end of a run took.
"""

import json
from pathlib import Path

from lightlm.errors import StoreError
from lightlm.store.commit import write_file

FIRST_CLOSING_SECONDS = 2.5
"""Kept on a machine without history: registration and the end of the process took 1.5 s on two quiet cores."""

REMEMBERED = 20
"""Runs that the estimate looks at."""


class ClosingTimes:
    """Seconds from the end of the final score to the end of the process, of the last runs."""

    def __init__(self, home: Path) -> None:
        self.path = home / "closing_times.json"

    def read(self) -> list[float]:
        """Return the remembered seconds, oldest first; empty when there is none or the file is broken."""
        try:
            values = json.loads(self.path.read_text(encoding="utf-8"))
            return [float(value) for value in values][-REMEMBERED:]
        except (OSError, ValueError, TypeError):
            return []

    def estimate(self) -> float:
        """Return the 95th percentile of the remembered seconds, or a careful first guess."""
        seconds = sorted(self.read())
        if not seconds:
            return FIRST_CLOSING_SECONDS
        return seconds[min(len(seconds) - 1, int(0.95 * len(seconds)))] * 1.1 + 0.2

    def record(self, seconds: float) -> None:
        """Remember one more run; a disk that refuses is no reason to fail a finished run."""
        try:
            write_file(self.path, json.dumps([*self.read(), round(seconds, 3)][-REMEMBERED:]).encode())
        except StoreError:
            return
