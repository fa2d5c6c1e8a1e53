"""The studio as a process: its application behind the guard, until a signal ends it."""

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lightlm.errors import LightLMError
from lightlm.serving.server import run_application

SHUTDOWN_SECONDS = 3
"""Seconds that running requests get to end after a signal."""


def run_studio(
    home: Path,
    host: str,
    port: int,
    key: str,
    hosts: Sequence[str],
    when_ready: Callable[[str], None],
) -> None:
    """Serve the studio of a home until a signal ends it.

    `hosts` are the HOST:PORT that requests may name. `when_ready` gets the ticket of a link.

    Raises:
        LightLMError: the server did not start.
    """
    from lightlm.studio.app import build_studio
    from lightlm.studio.guard import StudioGuard
    from lightlm.studio.sessions import Sessions

    logging.basicConfig(stream=sys.stderr, format="lightlm: %(message)s")
    logging.getLogger("lightlm.studio").setLevel(logging.INFO)
    for noisy in ("urllib3", "httpx"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    sessions = Sessions(key)

    application = StudioGuard(build_studio(home, sessions), sessions, hosts)
    if not run_application(
        application, host, port, SHUTDOWN_SECONDS, lambda: when_ready(sessions.issue_ticket())
    ):
        raise LightLMError("the studio did not start; the reason stands above")
