"""Prefect without a server: its settings, and an API of our own that starts while the rest imports.

It sets the environment before `import prefect`, and starts and ends the API's process. With a
server that the user named (PREFECT_API_URL and the like) it does nothing. The module imports
no Prefect; only the child process does (flows/prefect_api/embedded_server.py).

Why not Prefect's own ephemeral mode: it starts its server inside the first API call, after
importing all of prefect.server into the client too, and `kill -9` of the client leaves that server
running. A flow of six empty tasks, seconds from process start (two cores, Prefect 3.8.8, November
2026, median of 5), ours without heartbeats:

                         first line of the flow   process ended   CPU
    fresh database stock          7.2                  8.9        8.0
                   ours           5.4                  6.0        6.2
    warm database  stock          4.9                  7.0        5.9
                   ours           2.5                  3.0        3.2

What is left is the server's own imports (1.3 s of CPU) and, once, its migrations (3.5 s). Turning
migrations, block registration or services off on a warm database saved less than 0.1 s each.
"""

import atexit
import contextlib
import http.client
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lightlm.child_process import SAFE_PATH, end_child, python_command
from lightlm.errors import LightLMError
from lightlm.json_object import JsonObject
from lightlm.store.remembered import read_object

START_SECONDS = 180
"""Prefect's 20 s are not enough on a fresh, busy machine: two flows started together both died."""

PAGES_PORT = 4200
"""Where Prefect's pages are unless a person says otherwise."""

STOP_SECONDS = 5
"""A server that has not stopped by then is killed; its database survives that (SQLite, WAL)."""

CONNECT_PAUSE_SECONDS = 0.02
"""Seconds between the transport's tries to connect, instead of 0.5, doubled each time."""


def names_server() -> bool:
    """Return whether a person named a Prefect server: environment, .env, TOML files or profile."""
    if os.environ.get("PREFECT_API_URL"):
        return True

    dotenv = Path(".env")
    if dotenv.is_file() and re.search(
        r"^\s*(export\s+)?PREFECT_API_URL\s*=\s*\S", dotenv.read_text("utf-8", "replace"), re.M
    ):
        return True

    own = _read_toml(Path("prefect.toml"))
    shared = _read_toml(Path("pyproject.toml")).get("tool", {}).get("prefect", {})
    if own.get("api", {}).get("url") or shared.get("api", {}).get("url"):
        return True

    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    profiles = _read_toml(Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml"))
    name = os.environ.get("PREFECT_PROFILE") or profiles.get("active", "")
    return bool(profiles.get("profiles", {}).get(name, {}).get("PREFECT_API_URL"))


def apply_settings(home: Path) -> None:
    """Put Prefect's settings into the environment; call it before `import prefect`.

    Variables that are set already stay. `home` is LightLM's folder: Prefect's database lies
    under it, so that the user's own ~/.prefect is neither used nor changed.
    """
    # The server's telemetry and the client's; MLflow takes only the word "true".
    defaults = {
        "DO_NOT_TRACK": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # Only Prefect's own command line needs our plugin (flows/service/plugin.py).
        "PREFECT_PLUGINS_ENABLED": "false",
        # An API that goes away is logged once, by us, and not with each event and line of a log
        # that it does not take.
        "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
        # Of `without_retries`, for Prefect's own threads: they do not see what is set for a while,
        # and the one that sends logs held a flow's end up by 5 s at each flush.
        "PREFECT_CLIENT_MAX_RETRIES": "0",
    }

    if not names_server():
        # Prefect makes this folder itself, but not the ones above it.
        (home / "prefect").mkdir(parents=True, exist_ok=True)
        defaults |= {
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(START_SECONDS),
            # The embedded API has no pages. The service of this home has, and so has `lightlm
            # server prefect`: links to a run lead there.
            "PREFECT_UI_URL": f"http://127.0.0.1:{find_pages_port(home)}",
            # The terminal belongs to LightLM's own panel; Prefect's record keeps the INFO lines.
            "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR",
        }

    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def find_pages_port(home: Path) -> int:
    """Return the port on which the service of this home shows Prefect's pages; Prefect's own
    default where `lightlm up` did not start one.
    """
    port = read_object(home / "service" / "service.json").get("prefect_port")
    return port if isinstance(port, int) else PAGES_PORT


class EmbeddedApi:
    """A Prefect API on a free loopback port, in a process that ends with this one."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, errors: IO[bytes]) -> None:
        self.process = process
        self.port = port
        self._errors = errors

    @property
    def url(self) -> str:
        """The value of PREFECT_API_URL."""
        return f"http://127.0.0.1:{self.port}/api"

    def wait(self, timeout_seconds: float = START_SECONDS) -> None:
        """Return when the API answers.

        Raises:
            LightLMError: the process ended, or did not answer in time; with its last words.
        """
        deadline = time.monotonic() + timeout_seconds
        while not self._is_healthy(max(0.1, deadline - time.monotonic())):
            ended = self.process.poll()
            if ended is not None or time.monotonic() > deadline:
                state = "is too slow" if ended is None else f"ended with exit code {ended}"
                self.stop()
                raise LightLMError(
                    f"Prefect's embedded API was to answer within {timeout_seconds:.0f} s, but "
                    f"{state}; {self._read_errors() or 'it said nothing'}. Run a server with "
                    "`prefect server start` and set PREFECT_API_URL to use that instead"
                )
            time.sleep(0.05)

    def stop(self) -> None:
        """End the process: by closing its standard input, by force after STOP_SECONDS."""
        end_child(self.process, STOP_SECONDS)

    def _is_healthy(self, timeout_seconds: float) -> bool:
        # http.client and not httpx: no proxy of the environment stands between us and loopback.
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_seconds)
        try:
            connection.request("GET", "/api/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _read_errors(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        causes = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
        return " / ".join(line.strip() for line in causes[-1:] or lines[-5:])


def start_api() -> EmbeddedApi | None:
    """Start the API and return at once; None where a person named a server.

    Call it from the main thread (Linux ends the child with the thread that started it), after
    `apply_settings` and before `import prefect`, so that Prefect's own exit handlers, which flush
    to the API, run before ours, which stops it.
    """
    if names_server():
        return None

    environment = (
        os.environ
        | SAFE_PATH
        | {
            "PREFECT__SERVER_EPHEMERAL": "1",
            "PREFECT__SERVER_FINAL": "1",
            "PREFECT_UI_ENABLED": "0",
        }
    )

    # Loopback is shared by all who log in to this machine; only this run's processes know the word.
    if not os.environ.get("PREFECT_API_AUTH_STRING"):
        os.environ["PREFECT_API_AUTH_STRING"] = f"lightlm:{secrets.token_urlsafe(24)}"

    environment["PREFECT_SERVER_API_AUTH_STRING"] = os.environ["PREFECT_API_AUTH_STRING"]
    errors = tempfile.TemporaryFile()  # noqa: SIM115  (it lives as long as the child)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        port = listener.getsockname()[1]
        # The child inherits the listening socket itself: no other process can take the port in
        # between, and early requests wait in the queue instead of failing. Windows gets the number
        # alone.
        given = [] if sys.platform == "win32" else [listener.fileno()]
        process = subprocess.Popen(
            python_command(
                "lightlm_flows.prefect_api.embedded_server", str(port), *map(str, given)
            ),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=given,
            # Ctrl-C is for us: the last states of the flow run still have to reach the API.
            start_new_session=True,
        )

    api = EmbeddedApi(process, port, errors)
    atexit.register(api.stop)
    os.environ["PREFECT_API_URL"] = api.url
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1"]))

    return api


@contextlib.contextmanager
def without_heartbeats() -> Iterator[None]:
    """Run flows without heartbeats, which cost a second at the end of each flow.

    Only for an embedded API, where nothing watches them. No environment variable turns them off.
    """
    from prefect.settings import temporary_settings

    with temporary_settings({"flows.heartbeat_frequency": None}):  # pyright: ignore[reportArgumentType]
        yield


def find_trouble(timeout_seconds: float = 3.0) -> str | None:
    """Return why the Prefect API cannot be used now; None if it answers. Imports Prefect."""
    from prefect.client.orchestration import get_client
    from prefect.settings import temporary_settings

    try:
        with (
            temporary_settings({"client.max_retries": 0}),  # pyright: ignore[reportArgumentType]
            get_client(sync_client=True, httpx_settings={"timeout": timeout_seconds}) as client,
        ):
            error = client.api_healthcheck()
    except Exception as caught:  # noqa: BLE001  (a wrong address, a wrong certificate: each raises its own)
        error = caught

    return None if error is None else f"{type(error).__name__}: {error}".splitlines()[0]


@contextlib.contextmanager
def open_api() -> Iterator[str | None]:
    """Open Prefect's API, embedded or a server; yield the reason if none can be used."""
    api = None
    why_not = None
    try:
        api = start_api()
        if api is None:
            why_not = find_trouble()
        else:
            api.wait()
    except LightLMError as error:
        why_not = str(error)

    try:
        yield why_not
    finally:
        if api is not None:
            api.stop()


@contextlib.contextmanager
def without_retries() -> Iterator[None]:
    """Ask Prefect's API once and no more inside: an API that dies must not hold a run's end up.

    With the client's own five retries a flow whose server was killed hung for 146 s and then lost
    its result; with its events' ten, of 7 s together, each of the 25 events of a run held the
    process up after its end. A state that was not sent is sent at the next start
    (flows/prefect_api/reconciling.py). An API that is back is used again. The transport's pauses
    stay short for the rest of the process: Prefect's threads send what they hold at its very end.
    """
    import httpcore._async.connection
    import httpcore._sync.connection
    from prefect.events.clients import PrefectEventsClient
    from prefect.events.worker import EventsWorker, emit_events_to_cloud
    from prefect.settings import temporary_settings

    from lightlm_flows.prefect_api.bounded_client import bound_requests

    # no option reaches it
    for transport in (httpcore._sync.connection, httpcore._async.connection):
        vars(transport)["RETRIES_BACKOFF_FACTOR"] = CONNECT_PAUSE_SECONDS
    bound_requests()

    with temporary_settings({"client.max_retries": 0}):  # pyright: ignore[reportArgumentType]
        if not emit_events_to_cloud():
            EventsWorker.set_client_override(PrefectEventsClient, reconnection_attempts=0)
        try:
            yield
        finally:
            EventsWorker.set_client_override(None)


@contextlib.contextmanager
def without_prefect() -> Iterator[None]:
    """Run flows and tasks inside as the plain functions that they are, without any API.

    Both are called by their names all over a flow and ask the API themselves: no argument could
    keep them from it. Not thread-safe: for a command that runs one flow in its main thread.
    """
    from prefect import Flow, Task
    from prefect.settings import temporary_settings

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)

    former = Flow.__call__, Task.__call__
    Flow.__call__ = Task.__call__ = call
    try:
        with temporary_settings({"logging.to_api.enabled": False}):  # pyright: ignore[reportArgumentType]
            yield
    finally:
        Flow.__call__, Task.__call__ = former


def _read_toml(path: Path) -> JsonObject:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
