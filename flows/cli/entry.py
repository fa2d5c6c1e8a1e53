"""The entry of `lightlm`: Ctrl-C ends it in one line, even while the rest is still imported."""

import os
import signal


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
    from lightlm_flows.cli.main import main as run_command

    if is_heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run_command()
