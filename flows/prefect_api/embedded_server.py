"""The process of the embedded API: serves Prefect's API to one command, and ends with it."""

import ctypes
import gc
import os
import signal
import socket
import sys
import time
from pathlib import Path

from lightlm.child_process import refuse_relative_folders, watch_parent
from lightlm.store.lock import hold_lock
from lightlm.store.template import copy_template, keep_template
from lightlm_flows.prefect_api.embedded import STOP_SECONDS


def serve() -> None:
    """Be the child process: serve Prefect's API until standard input closes."""
    port = int(sys.argv[1])
    listeners = [int(fd) for fd in sys.argv[2:]]
    _end_with_parent()
    refuse_relative_folders()
    # The collector visits the growing heap of imports again and again: 1.29 s against 1.66 s.
    gc.disable()
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            # Commands that start together on a fresh database would run its migrations together:
            # without this lock 2 of 9 died so ("no such column", three at a time).
            with hold_lock(get_current_settings().home / "start.lock"):
                # 3.5 s of migrations are this installation's to pay once, and not each new home's.
                database = find_own_database()
                is_new = (
                    database is not None
                    and not database.exists()
                    and not copy_template("prefect", database)
                )
                await super().startup(sockets)
                if database is not None and is_new:
                    keep_template("prefect", database)

    config = uvicorn.Config(
        create_app(ephemeral=True, final=True),
        host="127.0.0.1",
        port=port,
        lifespan="on",
        log_level="error",
        timeout_graceful_shutdown=1,
    )

    gc.freeze()
    gc.enable()
    sockets = [socket.socket(fileno=fd) for fd in listeners]
    Server(config).run(sockets=sockets or None)


def find_own_database() -> Path | None:
    """Return Prefect's database file under its home; None if the user named another one."""
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    path = settings.home / "prefect.db"
    url = settings.server.database.connection_url
    return (
        path
        if url is not None and url.get_secret_value() == f"sqlite+aiosqlite:///{path}"
        else None
    )


def _end_with_parent() -> None:
    def end() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_SECONDS)
        os._exit(0)

    watch_parent(end)
    if sys.platform == "linux":
        # In addition to the pipe: a fork of the parent that outlives it may hold the pipe's other
        # end.
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


if __name__ == "__main__":
    serve()
