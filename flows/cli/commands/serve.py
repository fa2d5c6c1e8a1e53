"""The command that serves registered versions to OpenAI's clients: serve."""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import typer

from lightlm_flows.cli.options import Model

Host = Annotated[
    str, typer.Option(help="Any address but loopback requires a key and --allowed-hosts.")
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        metavar="KEY",
        help="The key that clients send. Others on this machine can read a command line: prefer "
        "LIGHTLM_API_KEY or --api-key-file; default: made once and printed.",
    ),
]

ApiKeyFile = Annotated[
    Path | None,
    typer.Option("--api-key-file", help="A file that holds the key; default: none."),
]


def serve(
    model: Model = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Serve the versions of one model; default: all models."),
    ] = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8000,
    api_key: ApiKey = None,
    api_key_file: ApiKeyFile = None,
    allowed_hosts: Annotated[
        str,
        typer.Option(
            help="HOST:PORT,HOST:PORT that clients may use as this server's name; default: "
            "localhost and 127.0.0.1."
        ),
    ] = "",
    max_batch: Annotated[int, typer.Option(min=1, max=512, help="Texts written at a time.")] = 32,
    max_queue: Annotated[
        int, typer.Option(min=0, max=100_000, help="Texts that wait; a further one gets a 429.")
    ] = 128,
    max_models: Annotated[
        int, typer.Option(min=1, max=64, help="Versions kept in memory at a time.")
    ] = 2,
    device: Annotated[
        Literal["cpu", "cuda"], typer.Option(help="Where the models compute: cpu or cuda.")
    ] = "cpu",
    is_traced: Annotated[
        bool,
        typer.Option("--traces", help="Keep each request's prompt and text in MLflow as a trace."),
    ] = False,
) -> None:
    """Serve registered versions to OpenAI's clients.

    Stays until Ctrl-C. Follows the champion: new requests get its new version.
    """
    home, key, is_given, names = open_endpoint(
        "serve", host, port, api_key, api_key_file, allowed_hosts
    )

    def tell(loaded: str) -> None:
        served = loaded or "no model yet"
        log(f"Serving {served} on http://{host}:{port}/v1 (Ctrl-C ends it)")
        if not is_given:
            print_key(home, key)

    from lightlm.serving.server import serve as run
    from lightlm.serving.versions import Limits

    limits = Limits(max_batch, max_queue, max_models, device)
    run(home, host, port, key, names, model, name, limits, tell, is_traced=is_traced)


class Endpoint(NamedTuple):
    """Where a server's command has its models, its key, whether that was given, and the HOST:PORT
    that requests may name.
    """

    home: Path
    key: str
    is_given: bool
    hosts: list[str]


def open_endpoint(
    command: Literal["serve", "studio"],
    host: str,
    port: int,
    api_key: str | None,
    api_key_file: Path | None,
    allowed_hosts: str,
) -> Endpoint:
    """Return what a server that `command` starts needs, checked.

    Raises:
        InputError: the address is open to others without key and names, or the port is taken.
    """
    if api_key is not None and sys.argv[1:2] == [command] and os.name == "posix":
        restart_without_key(api_key)
    from lightlm.store.home import find_home
    from lightlm_flows.service.api_key import KEY_VARIABLE, find_given_key, open_own_key
    from lightlm_flows.service.lifecycle import check_ports
    from lightlm_flows.service.servers import check_exposure, is_loopback

    home = find_home()
    given = find_given_key(api_key, api_key_file, os.environ)
    names = [word.strip() for word in allowed_hosts.split(",") if word.strip()]
    check_exposure(command, host, names, {KEY_VARIABLE: given or ""})
    if is_loopback(host):
        check_ports({"--port": port})
        names += [f"{own}:{port}" for own in ("localhost", "127.0.0.1", "[::1]")]
    return Endpoint(home, given or open_own_key(home), given is not None, names)


def restart_without_key(key: str) -> None:
    """Start this command again with the key in its environment: all users read command lines."""
    from lightlm.child_process import python_command
    from lightlm_flows.service.api_key import KEY_VARIABLE

    words = [word for word in sys.argv[1:] if word != f"--api-key={key}"]
    if "--api-key" in words:
        place = words.index("--api-key")
        del words[place : place + 2]
    command = python_command("lightlm_flows.cli", *words)
    os.execve(command[0], command, os.environ | {KEY_VARIABLE: key})  # noqa: S606


def print_key(home: Path, key: str) -> None:
    """Print the key at a terminal; a log or a pipe gets the place of its file."""
    from lightlm_flows.service.api_key import name_key_file

    if sys.stderr.isatty():
        log(f"API key: {key}")
    else:
        log(f"The API key is in {name_key_file(home)}; at a terminal it is shown here.")


def log(message: str) -> None:
    """Tell the person at the terminal."""
    typer.echo(message, err=True)
