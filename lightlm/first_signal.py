"""The first signal, which ends a process in order; the second ends it at once."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


class FirstSignal:
    """The signal that ends this process in order; none so far: its number is None.

    A Ctrl-C counts if `confirm` says yes; another one while it asks counts as a yes. `mark` is
    called before the KeyboardInterrupt, which a library may drop.
    """

    def __init__(
        self, confirm: Callable[[], bool] = lambda: True, mark: Callable[[], None] = lambda: None
    ) -> None:
        self.number: int | None = None
        self._confirm = confirm
        self._mark = mark
        self._is_asking = False

    def listen(self, *names: str, unless_handled: bool = False) -> dict[int, Any]:
        """Handle the signals that this system has of these; return their former handlers.

        Only in the main thread. `unless_handled`: what is handled or ignored already, as SIGHUP by
        nohup, stays so.
        """
        numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
        return {
            number: signal.signal(number, self._stop)
            for number in numbers
            if not unless_handled or signal.getsignal(number) is signal.SIG_DFL
        }

    def _stop(self, number: int, _: FrameType | None) -> None:
        if self.number is not None:
            if terminal := sys.modules.get("lightlm.console.terminal"):
                terminal.restore_echo()
            os._exit(128 + number)

        if number == signal.SIGINT and not self._is_asking:
            self._is_asking = True
            try:
                if not self._confirm():
                    return
            finally:
                self._is_asking = False

        if self.number is not None:  # a signal that came while it asked is on its way
            return

        self.number = number
        self._mark()
        # No Exception: libraries that are asked to go on after an error must not swallow it.
        raise KeyboardInterrupt
