"""The command that opens the studio in a browser: studio."""

import os
import sys
from typing import Annotated

import typer

from lightlm_flows.cli.commands.serve import ApiKey, ApiKeyFile, Host, log, open_endpoint, print_key


def studio(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8700,
    api_key: ApiKey = None,
    api_key_file: ApiKeyFile = None,
    allowed_hosts: Annotated[
        str,
        typer.Option(
            help="HOST:PORT,HOST:PORT that browsers may use as this server's name; default: "
            "localhost and 127.0.0.1."
        ),
    ] = "",
    is_opened: Annotated[
        bool | None,
        typer.Option(
            "--open/--no-open",
            help="Open the page in a browser; default: at a terminal with a screen.",
        ),
    ] = None,
) -> None:
    """Open the studio: everything on a page in the browser.

    Stays until Ctrl-C. A training that it started goes on without it.
    """
    home, key, is_given, names = open_endpoint(
        "studio", host, port, api_key, api_key_file, allowed_hosts
    )
    from lightlm_flows.service.api_key import KEY_VARIABLE
    from lightlm_flows.service.browser import can_open_pages, open_private_page
    from lightlm_flows.service.servers import is_loopback

    address = f"http://{names[0] if not is_loopback(host) else f'127.0.0.1:{port}'}"

    def tell(ticket: str) -> None:
        log(f"The studio is on {address} (Ctrl-C ends it)")
        link = f"{address}/#ticket={ticket}"
        if sys.stderr.isatty():
            log(f"This link logs a browser in, once, within ten minutes: {link}")
        if not is_given:
            print_key(home, key)
        if can_open_pages() if is_opened is None else is_opened:
            open_private_page(home, link, log)

    from lightlm.studio.server import run_studio

    # What the studio starts sends no telemetry, and finds no key.
    os.environ.pop(KEY_VARIABLE, None)
    run_studio(home, host, port, key, names, tell)
