"""Servers that do not do what they should, for benchmarks/disturbed.py: on loopback, a thread a
connection.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
Answer = Callable[[socket.socket], None]


def hang(connection: socket.socket) -> None:
    """Take the request and never answer."""
    time.sleep(3600)


def drip(connection: socket.socket) -> None:
    """Answer a byte every second."""
    connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(1)


def never_end(connection: socket.socket) -> None:
    """Answer without end, 64 kB at a time."""
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        time.sleep(0.05)


def ask_for_patience(connection: socket.socket) -> None:
    """Answer that the client is to come back in ten minutes."""
    connection.sendall(b"HTTP/1.1 429 Too Many\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n")


def fail(connection: socket.socket) -> None:
    """Answer that the server is broken."""
    connection.sendall(b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n")


ANSWERS: dict[str, Answer] = {
    "hangs": hang,
    "drips": drip,
    "never ends": never_end,
    "429, Retry-After 600": ask_for_patience,
    "500": fail,
}


@contextlib.contextmanager
def serve(handle: Answer) -> Iterator[str]:
    """Give the URL of a server that handles each connection so, once something was sent."""

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=run, args=(connection,), daemon=True).start()

    def run(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            handle(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def answer_each(answer: Answer) -> Answer:
    """Return what reads a request and answers it so."""

    def handle(connection: socket.socket) -> None:
        connection.recv(65536)
        answer(connection)

    return handle


def pass_on(port: int, hangs_at: float) -> Answer:
    """Return what passes bytes to and from `port`, and none any more from `hangs_at`
    (time.monotonic()) on.
    """

    def copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                while time.monotonic() > hangs_at:
                    time.sleep(1)
                target.sendall(data)

    def handle(connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as server:
            threading.Thread(target=copy, args=(server, connection), daemon=True).start()
            copy(connection, server)

    return handle


def delay(port: int, seconds: float) -> Answer:
    """Return what passes bytes to and from `port`, the answers `seconds` later."""

    def answer(connection: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                time.sleep(seconds)
                connection.sendall(data)

    def handle(connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as server:
            threading.Thread(target=answer, args=(connection, server), daemon=True).start()
            while data := connection.recv(65536):
                server.sendall(data)

    return handle


def mlflow_server() -> contextlib.AbstractContextManager[int]:
    """Give the port of an MLflow server with a database of its own."""
    return run_server(
        "mlflow server --workers 1 --backend-store-uri sqlite:///{home}/mlflow.db --port {port}"
    )


def prefect_server() -> contextlib.AbstractContextManager[int]:
    """Give the port of a Prefect server with a database of its own."""
    return run_server(
        "uvicorn --factory prefect.server.api.server:create_app --host 127.0.0.1 "
        "--log-level error --port {port}"
    )


@contextlib.contextmanager
def run_server(words: str) -> Iterator[int]:
    """Give the port of a Python module that runs as a server in a home of its own."""
    home = tempfile.mkdtemp(prefix="lightlm-server-")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    process = subprocess.Popen(
        [sys.executable, "-P", "-m", *words.format(home=home, port=port).split()],
        cwd=home,
        env={
            "PREFECT_HOME": home,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PATH": "/usr/bin:/bin",
        },
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).close()
                break
            time.sleep(0.1)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(home, ignore_errors=True)


SLOW_SYNC = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
static void slow(void) { usleep(150000); }
int fsync(int fd) { slow(); return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd); }
int fdatasync(int fd) { slow(); return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd); }
"""


def build_slow_disk(folder: Path) -> Path | None:
    """Return a library that makes each fsync 150 ms slower where it is preloaded; None without a C
    compiler.
    """
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return None
    source = folder / "slow.c"
    library = folder / "slow.so"
    source.write_text(SLOW_SYNC)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library
