"""The server as a process: its application behind the guard, until a signal ends it."""

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightlm.errors import LightLMError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from lightlm.serving.versions import Limits

SWITCH_SECONDS = 0.0005
"""Seconds that the engine's thread computes before the server's thread gets its turn."""

SHUTDOWN_SECONDS = 30
"""Seconds that running requests get to end after a signal."""


def serve(
    home: Path,
    host: str,
    port: int,
    key: str,
    hosts: Sequence[str],
    model: str | None,
    name: str | None,
    limits: "Limits",
    when_ready: Callable[[str], None],
    *,
    is_traced: bool = False,
) -> None:
    """Serve the registered versions of a home until a signal ends it.

    `hosts` are the HOST:PORT that requests may name. `when_ready` gets the loaded version's name,
    or an empty string where no model is registered yet. With `is_traced` MLflow keeps each request.

    Raises:
        ModelVersionError: `model` or `name` names no registered version.
        LightLMError: the port is not free.
    """
    from lightlm.serving.app import build_application
    from lightlm.serving.guard import Guard
    from lightlm.serving.versions import complete_uri
    from lightlm.tracking.catalog import resolve

    if model is not None or name is not None:
        resolve(home, model and complete_uri(model), name)
    # The engine's steps are short: with Python's 5 ms a request would wait longer for its turn.
    sys.setswitchinterval(SWITCH_SECONDS)
    logging.basicConfig(stream=sys.stderr, format="lightlm: %(message)s")
    logging.getLogger("lightlm.serving").setLevel(logging.INFO)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it logs each try to reach MLflow
    found: list[str] = []
    application = build_application(
        home,
        model,
        name,
        limits,
        lambda loaded: found.append(loaded.name if loaded else ""),
        is_traced=is_traced,
    )

    guarded = Guard(application, key, hosts)
    if not run_application(guarded, host, port, SHUTDOWN_SECONDS, lambda: when_ready(found[0])):
        raise LightLMError("the server did not start; the reason stands above")


def run_application(
    application: "ASGIApp",
    host: str,
    port: int,
    shutdown_seconds: int,
    when_started: Callable[[], None],
) -> bool:
    """Serve an application until a signal ends it; return whether it ever started."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: object = None) -> None:
            await super().startup(sockets)  # pyright: ignore[reportArgumentType]
            if self.started:
                when_started()

    config = uvicorn.Config(
        application,
        host=host.strip("[]"),
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=shutdown_seconds,
    )
    server = Server(config)
    server.run()
    return server.started
