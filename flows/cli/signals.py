"""The end of a command on a signal: the first ends it in order, the second at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from lightlm.budget.allowance import PATIENCE
from lightlm.errors import Interrupted, LightLMError, Terminated

if TYPE_CHECKING:
    from lightlm.runs.launch import Launch

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


@contextmanager
def end_in_order(launch: "Launch") -> Iterator[None]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into an exception; the second ends the process.

    Only in the main thread. Children whose pipe closes then end by themselves. A Ctrl-C counts if
    `launch` confirms it; another one while it asks counts as a yes.

    Raises:
        Interrupted: Ctrl-C.
        Terminated: another signal.
    """
    received: list[int] = []
    asking: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        if received:
            if terminal := sys.modules.get("lightlm.console.terminal"):
                terminal.restore_echo()
            os._exit(128 + number)

        if number == signal.SIGINT and not asking:
            asking.append(number)
            try:
                if not launch.confirm_stop():
                    return
            finally:
                asking.clear()

        if received:  # a signal that came while it asked is on its way
            return

        received.append(number)
        launch.is_stopping = True
        # No Exception: libraries that are asked to go on after an error must not swallow it.
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    former = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    except BaseException as error:
        number = received[0] if received else _signal_of(error)
        if number is None:
            raise
        is_ours = isinstance(error, (KeyboardInterrupt, LightLMError))
        message = (is_ours and str(error)) or "stopped; run the same command again to go on"
        raise (Interrupted if number == signal.SIGINT else Terminated)(message) from None
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


class FirstSignal:
    """The signal that ended a command which does not handle signals itself; none so far: None."""

    def __init__(self) -> None:
        self.number: int | None = None

    def listen(self) -> None:
        """Turn the first SIGTERM or SIGHUP into a KeyboardInterrupt, so that a command removes what
        it has half written; the second ends the process at once.

        What is handled or ignored already, as SIGHUP by nohup, stays so.
        """
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self._stop)

    def _stop(self, number: int, _: FrameType | None) -> None:
        if self.number is not None:
            os._exit(128 + number)
        self.number = number
        raise KeyboardInterrupt


def _signal_of(error: BaseException) -> int | None:
    """Return the signal that ended the flow; inside a flow Prefect handles SIGTERM."""
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    return signal.SIGTERM if type(error).__name__ == "TerminationSignal" else None


def end_process(exit_code: int) -> NoReturn:
    """End the process within the run's allowance, even if a library waits for a server."""
    with suppress(OSError, ValueError):
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # closed by whoever started the process
                stream.flush()
    last_resort = threading.Timer(PATIENCE.exit_seconds(), os._exit, (exit_code,))
    last_resort.daemon = True
    last_resort.start()
    sys.exit(exit_code)
