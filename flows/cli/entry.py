"""The entry of `lightlm`: Ctrl-C ends it in one line, even while the rest is still imported."""

import os
import signal
import sys


def end_start(number: int, frame: object) -> None:
    """End the process at once: while it imports there is nothing to clean up.

    A KeyboardInterrupt would show a traceback of whatever is imported, or be lost in it.
    """
    os.write(2, b"lightlm: stopped\n")
    os._exit(128 + number)


# Whoever started this may have SIGINT ignored, as a shell does for a job in the background.
is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if is_heard:
    signal.signal(signal.SIGINT, end_start)


def main() -> None:
    """Import the command line, which takes half a second, and run it."""
    open_closed_streams()
    from lightlm_flows.cli.main import main as run_command

    if is_heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run_command()


def open_closed_streams() -> None:
    """Open the null device for each standard stream that a person or a daemon has closed (`>&-`).

    Python has None there, and the next file that is opened would get its number: a database what
    a library prints.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is not None:
            continue
        handle = os.open(os.devnull, os.O_RDWR)
        if handle != number:
            os.dup2(handle, number)
            os.close(handle)
        os.set_inheritable(number, True)
        setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
