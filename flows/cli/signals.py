"""The end of a command on a signal: the first ends it in order, the second at once."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

from lightlm.budget.allowance import PATIENCE
from lightlm.errors import Interrupted, LightLMError, Terminated
from lightlm.first_signal import FirstSignal

if TYPE_CHECKING:
    from lightlm.runs.launch import Launch


@contextmanager
def end_in_order(launch: "Launch") -> Iterator[None]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into an exception; the second ends the process.

    Only in the main thread. Children whose pipe closes then end by themselves. A Ctrl-C counts if
    `launch` confirms it; another one while it asks counts as a yes.

    Raises:
        Interrupted: Ctrl-C.
        Terminated: another signal.
    """

    def mark() -> None:
        launch.is_stopping = True

    first = FirstSignal(launch.confirm_stop, mark)
    former = first.listen("SIGINT", "SIGTERM", "SIGHUP")
    try:
        yield
    except BaseException as error:
        number = first.number or _signal_of(error)
        if number is None:
            raise
        is_ours = isinstance(error, (KeyboardInterrupt, LightLMError))
        message = (is_ours and str(error)) or "stopped; run the same command again to go on"
        raise (Interrupted if number == signal.SIGINT else Terminated)(message) from None
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _signal_of(error: BaseException) -> int | None:
    """Return the signal that ended the flow; inside a flow Prefect handles SIGTERM."""
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    return signal.SIGTERM if type(error).__name__ == "TerminationSignal" else None


_exit_codes: list[int] = []


def _leave() -> None:
    """Leave without taking the interpreter apart, which takes 0.5 s, and a second where others keep
    the cores busy; the exit handlers of all libraries have run.
    """
    if _exit_codes:
        _flush()
        os._exit(_exit_codes[-1])


# What is registered first runs last, and nothing that has exit handlers is imported yet.
atexit.register(_leave)


def end_process(exit_code: int) -> NoReturn:
    """End the process within the run's allowance, even if a library waits for a server."""
    _flush()
    _exit_codes.append(exit_code)
    last_resort = threading.Timer(PATIENCE.exit_seconds(), os._exit, (exit_code,))
    last_resort.daemon = True
    last_resort.start()
    sys.exit(exit_code)


def _flush() -> None:
    with suppress(OSError, ValueError):
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # closed by whoever started the process
                stream.flush()
