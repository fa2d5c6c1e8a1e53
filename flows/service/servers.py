"""The start of Prefect's and MLflow's servers: flags, secrets, and refused starts.

The same for `lightlm up`, `lightlm server` and docker-compose.yml: loopback by default, a password
on both, allowed host names, no telemetry, and only listed calls of MLflow. Any other address
requires given secrets and host names.
"""

import configparser
import io
import ipaddress
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from lightlm.child_process import SAFE_PATH, python_command
from lightlm.errors import InputError, StoreError, TrackingError
from lightlm.redaction import redact
from lightlm.store.lock import hold_lock
from lightlm.tracking.registry import tracking_uri
from lightlm_flows.service.private_files import make_private_folder, write_private_file

Server = Literal["prefect", "mlflow"]
Exposed = Literal["prefect", "mlflow", "serve", "studio"]
"""Servers that others could reach; `serve` and `studio` are started by their own commands."""

LOOPBACK = "127.0.0.1"
USER = "lightlm"
"""User name on both servers: Prefect knows one user, MLflow's first is its administrator."""

SECRET_BYTES = 32
MIN_SECRET_LENGTH = 12
"""Characters; below that a password given by hand is guessed."""

SECRETS: dict[Exposed, tuple[str, ...]] = {
    "prefect": ("PREFECT_SERVER_API_AUTH_STRING",),
    "mlflow": ("MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"),
    "serve": ("LIGHTLM_API_KEY",),
    "studio": ("LIGHTLM_API_KEY",),
}

PASSWORD_CACHE_SECONDS = 60
"""MLflow hashes the password anew at each request otherwise, which costs more than the request."""


class ServiceSecrets(BaseModel, frozen=True):
    """The passwords of this installation's servers, made once, in a private file."""

    prefect_password: str
    mlflow_password: str
    mlflow_session_key: str

    @property
    def prefect_auth_string(self) -> str:
        """USER:PASSWORD, as both ends of Prefect take it."""
        return f"{USER}:{self.prefect_password}"

    def environment(self) -> dict[str, str]:
        """Return the servers' secrets as the variables that they read."""
        return {
            "PREFECT_SERVER_API_AUTH_STRING": self.prefect_auth_string,
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.mlflow_password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self.mlflow_session_key,
        }


@dataclass(frozen=True)
class ServerStart:
    """A server's command, what the environment adds to it, and the HOST:PORT of its pages."""

    command: list[str]
    environment: dict[str, str]
    names: tuple[str, ...] = ()


def name_service_folder(home: Path) -> Path:
    """Return the folder that holds the service's secrets, logs and record."""
    return home / "service"


def open_secrets(home: Path) -> ServiceSecrets:
    """Return this installation's secrets; the first call makes them.

    Raises:
        StoreError: the file is there and is not what was written.
    """
    path = name_service_folder(home) / "secrets.json"
    with hold_lock(path.with_suffix(".lock")):
        if not path.exists():
            made = [secrets.token_urlsafe(SECRET_BYTES) for _ in range(3)]
            names = ("prefect_password", "mlflow_password", "mlflow_session_key")
            made_secrets = ServiceSecrets.model_validate(dict(zip(names, made, strict=True)))
            write_private_file(path, made_secrets.model_dump_json().encode())
        try:
            return ServiceSecrets.model_validate_json(path.read_bytes())
        except ValidationError:
            raise StoreError(
                f"{path} does not hold the service's secrets; stop the service and remove "
                f"{path.parent}"
            ) from None


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_exposure(
    server: Exposed, host: str, allowed_hosts: Sequence[str], environment: Mapping[str, str]
) -> None:
    """Refuse a server that others could reach without a password, or under any name.

    Raises:
        InputError: says which of the two is missing.
    """
    for name in allowed_hosts:
        if "*" in name or not urlsplit(f"//{name}").hostname or "/" in name:
            raise InputError(
                f"--allowed-hosts {name} names no host; give HOST:PORT, without a wildcard"
            )

    if is_loopback(host):
        return

    weak = [
        name
        for name in SECRETS[server]
        if len(environment.get(name, "").removeprefix(f"{USER}:")) < MIN_SECRET_LENGTH
    ]

    if weak:
        raise InputError(
            f"{server} was to listen on {host}, which others reach, without a password of "
            f"{MIN_SECRET_LENGTH} "
            f"characters or more: set {' and '.join(weak)}, or listen on 127.0.0.1"
        )

    if not allowed_hosts:
        raise InputError(
            f"{server} was to listen on {host} and answer to any host name; name those that lead "
            "to it: --allowed-hosts HOST:PORT,HOST:PORT"
        )


def start_of(
    server: Server,
    home: Path,
    host: str,
    port: int,
    allowed_hosts: Sequence[str],
    environment: Mapping[str, str],
) -> ServerStart:
    """Return a server's start; on loopback, missing secrets are this installation's own.

    Raises:
        InputError: it would be reachable from elsewhere without a password or without host names.
    """
    check_exposure(server, host, allowed_hosts, environment)
    own = open_secrets(home).environment() if is_loopback(host) else {}
    given = {name: environment[name] for name in SECRETS[server] if environment.get(name)}
    found = {name: given.get(name) or own[name] for name in SECRETS[server]}
    names = list(allowed_hosts) or [f"localhost:{port}", f"127.0.0.1:{port}"]
    if server == "prefect":
        return start_of_prefect(home, host, port, names, found, environment)
    return start_of_mlflow(home, host, port, names, found, environment)


def start_of_prefect(
    home: Path,
    host: str,
    port: int,
    names: Sequence[str],
    found: dict[str, str],
    environment: Mapping[str, str],
) -> ServerStart:
    """Return Prefect's start: the command line's own database, unless a URL names another."""
    # Prefect answers every host name; the password is what a page elsewhere lacks. The names are
    # those of its pages.
    fixed = dict(SAFE_PATH) | {
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": ",".join(f"http://{name}" for name in names),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "true",
        # In memory, the default, a restart of the server would keep slots taken for ever
        # (PrefectHQ/prefect#17415).
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",  # noqa: E501
    }

    defaults = {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_UI_API_URL": f"http://{names[0]}/api",
        # Of Prefect's 60, a new schedule shows its runs only after half a minute; one look is one
        # query.
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "10",
    }

    given = {name: value for name, value in environment.items() if name in defaults and value}
    command = python_command("prefect", "server", "start", "--host", host, "--port", str(port))

    return ServerStart(command, found | fixed | defaults | given)


def start_of_mlflow(
    home: Path,
    host: str,
    port: int,
    names: Sequence[str],
    found: dict[str, str],
    environment: Mapping[str, str],
) -> ServerStart:
    """Return MLflow's start: proxied artifacts, password, host names, and only listed calls."""
    folder = name_service_folder(home)
    config = folder / "mlflow-auth.ini"
    users = (
        environment.get("LIGHTLM_MLFLOW_USERS_URI")
        or f"sqlite:///{(folder / 'mlflow-users.db').as_posix()}"
    )

    write_private_file(config, write_auth_config(users))
    store = (
        environment.get("MLFLOW_BACKEND_STORE_URI")
        or f"sqlite:///{(home / 'mlflow.db').as_posix()}"
    )
    artifacts = environment.get("MLFLOW_ARTIFACTS_DESTINATION") or str(home / "mlartifacts")
    words = ["--host", host, "--port", str(port), "--allowed-hosts", ",".join(names)]
    fixed = dict(SAFE_PATH) | {
        # By variable: a command line with a database's password in it is read by every user of the
        # machine.
        "MLFLOW_BACKEND_STORE_URI": store,
        "MLFLOW_ARTIFACTS_DESTINATION": artifacts,
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_AUTH_ADMIN_USERNAME": USER,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }

    command = python_command("lightlm.tracking.mlflow_server", *words)
    return ServerStart(command, found | fixed, tuple(names))


def start_of_pages(home: Path, port: int) -> ServerStart:
    """Return MLflow's start on this home alone, as `lightlm ui` needs it.

    Raises:
        TrackingError: MLFLOW_TRACKING_URI names a server, which has pages of its own.
    """
    if (uri := tracking_uri(home)).startswith(("http://", "https://")):
        raise TrackingError(
            f"MLFLOW_TRACKING_URI is {redact(uri)}, a server that shows these pages already; open "
            f"it in a browser, or unset the variable to see the runs under {home}"
        )
    make_private_folder(name_service_folder(home))
    return start_of("mlflow", home, LOOPBACK, port, (), {"MLFLOW_BACKEND_STORE_URI": uri})


def write_auth_config(users_uri: str) -> bytes:
    """Return MLflow's auth settings as a file, without the password."""
    config = configparser.ConfigParser(interpolation=None)
    config["mlflow"] = {
        "default_permission": "NO_PERMISSIONS",
        # MLflow reads the file with interpolation on.
        "database_uri": users_uri.replace("%", "%%"),
        "admin_username": USER,
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
        "auth_cache_ttl_seconds": str(PASSWORD_CACHE_SECONDS),
    }

    text = io.StringIO()
    config.write(text)
    return text.getvalue().encode()


def client_environment(
    secrets_: ServiceSecrets, prefect_port: int, mlflow_port: int
) -> dict[str, str]:
    """Return the variables that point a client on this machine at the two servers."""
    return {
        "PREFECT_API_URL": f"http://127.0.0.1:{prefect_port}/api",
        "PREFECT_API_AUTH_STRING": secrets_.prefect_auth_string,
        "PREFECT_UI_URL": f"http://127.0.0.1:{prefect_port}",
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow_port}",
        "MLFLOW_TRACKING_USERNAME": USER,
        "MLFLOW_TRACKING_PASSWORD": secrets_.mlflow_password,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        # `prefect deployment run train-flow`, the name alone, also outside the checkout
        # (flows/service/plugin.py).
        "PREFECT_PLUGINS_ENABLED": "true",
        "PREFECT_PLUGINS_ALLOW": "lightlm",
    }
