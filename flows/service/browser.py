"""The servers' pages in a browser: logins, and opening them."""

import html
import os
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path

from lightlm_flows.service.private_files import make_private_folder, write_private_file
from lightlm_flows.service.servers import (
    LOOPBACK,
    USER,
    ServiceSecrets,
    name_service_folder,
    open_secrets,
    start_of_pages,
)


def describe_logins(secrets: ServiceSecrets, *servers: str) -> list[str]:
    """Return the logins: Prefect's page has one field, MLflow's a user and a password."""
    lines = {
        "prefect": f"Prefect asks for one string:  {secrets.prefect_auth_string}",
        "mlflow": f"MLflow asks for a user:       {USER}   and a password:  "
        f"{secrets.mlflow_password}",
    }
    return [lines[server] for server in servers]


def print_logins(home: Path, log: Callable[[str], None], *servers: str) -> None:
    """Print at a terminal what the pages ask for; a log or a pipe gets no password."""
    if sys.stderr.isatty():
        for line in describe_logins(open_secrets(home), *servers):
            log(line)
    else:
        log(
            f"The passwords are in {name_service_folder(home) / 'secrets.json'}; at a terminal "
            "they are shown here."
        )


def open_page(url: str, log: Callable[[str], None]) -> None:
    """Open a page in the browser; its address holds no password, as others read command lines."""
    if not webbrowser.open_new_tab(url):
        log(f"No browser opens here; open {url} in one.")


def can_open_pages() -> bool:
    """Return whether a person sits here, before a screen: elsewhere a text browser might open."""
    has_screen = sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    return has_screen and sys.stderr.isatty()


def open_private_page(home: Path, link: str, log: Callable[[str], None]) -> None:
    """Open a link that logs in: by way of a private file, as others read command lines."""
    page = name_service_folder(home) / "studio.html"
    make_private_folder(page.parent)
    target = html.escape(link)
    write_private_file(
        page,
        '<!doctype html><meta charset="utf-8"><title>LightLM studio</title>'
        f'<meta http-equiv="refresh" content="0; url={target}">'
        f'<a href="{target}">LightLM studio</a>\n'.encode(),
    )
    if not webbrowser.open_new_tab(page.as_uri()):
        log("No browser opens here; open the address above in one.")


def serve_pages(home: Path, port: int, is_opened: bool, log: Callable[[str], None]) -> None:
    """Serve MLflow's pages of this home until Ctrl-C; say where, once they answer.

    Raises:
        InputError: the port is taken.
        TrackingError: MLFLOW_TRACKING_URI names a server, which has pages of its own.
    """
    from lightlm_flows.service.lifecycle import bare_environment, check_ports

    url = f"http://{LOOPBACK}:{port}"
    start = start_of_pages(home, port)
    check_ports({"--port": port})
    for name in os.environ.keys() - bare_environment().keys():
        if not name.startswith("MLFLOW_S3_"):
            del os.environ[name]

    os.environ.update(start.environment)
    from lightlm.tracking.mlflow_server import serve

    def announce() -> None:
        log(f"MLflow on {url} (Ctrl-C ends it)")
        print_logins(home, log, "mlflow")
        if is_opened:
            open_page(url, log)

    log("Starting MLflow's server")
    serve(LOOPBACK, port, start.names, announce)
