"""Progress in a notebook: a bar of the time, and the newest lines, in place of one another."""

import html
import sys
import time
from collections import deque
from typing import Any

NEWEST_LINES = 8
"""Lines below the bar."""


def find_shell() -> Any:
    """Return the notebook's shell; None elsewhere. Imports nothing."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return shell if hasattr(shell, "kernel") else None


class NotebookProgress:
    """Shows the lines of a run below the cell that started it; a callable that takes a line."""

    def __init__(self, budget_seconds: float | None = None) -> None:
        from IPython.display import DisplayHandle  # pyright: ignore[reportMissingImports]

        self.budget_seconds = budget_seconds
        self._lines: deque[str] = deque(maxlen=NEWEST_LINES)
        self._started = time.monotonic()
        self._handle = DisplayHandle()
        self._is_shown = False

    def __call__(self, line: str) -> None:
        """Show a further line."""
        if not line.strip():
            return
        self._lines.append(line)
        shown: dict[str, str] = {
            "text/plain": "\n".join(self._lines),
            "text/html": self.render(time.monotonic() - self._started),
        }
        if self._is_shown:
            self._handle.update(shown, raw=True)
        else:
            self._handle.display(shown, raw=True)
            self._is_shown = True

    def render(self, seconds: float) -> str:
        """Return the bar and the lines as HTML, `seconds` after the start."""
        lines = html.escape("\n".join(self._lines))
        bar = f"{seconds:.0f} s"
        if self.budget_seconds:
            fraction = min(1.0, seconds / self.budget_seconds)
            bar = (
                f'<progress value="{fraction:.3f}" max="1" aria-label="time used"></progress> '
                f"{seconds:.0f} of {self.budget_seconds:.0f} s"
            )
        return f"<div>{bar}</div><pre>{lines}</pre>"
