"""MLflow breaks in ten ways while a run records: every metric arrives once, and recording never
waits.

A real MLflow server, and between it and the outbox a proxy that breaks as it is told.
"""

import http.client
import os
import random
import signal
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lightlm.tracking.outbox import Outbox
from lightlm.tracking.record import Metrics, read_records
from lightlm.tracking.recorder import Recorder
from lightlm.tracking.registry import open_client
from lightlm.tracking.shipped import read_shipped
from lightlm.tracking.sync import sync
from tests.tracking.conftest import database, model_folder, new_database, recorded, request_for
from tests.tracking.test_server import Server, remote, server

__all__ = [
    "database",
    "model_folder",
    "new_database",
    "recorded",
    "remote",
    "request_for",
    "server",
]

STEPS = 500
"""Two metrics a step: 1,000 a mode, 10,000 in all."""

ANSWERS = {
    "500": b"500 Internal Server Error",
    "404": b"404 Not Found",
    "401": b"401 Unauthorized",
    "disk full": b"507 Insufficient Storage",
}
PROXIED = ("slow", "hang", "reset", *ANSWERS)
MODES = ("down at start", "down midway", "restarted", *PROXIED)
STALL_P99_SECONDS = 0.005


class Proxy(socketserver.ThreadingTCPServer):
    """One request a connection, passed on to the server; `mode` says how it breaks, empty: not at
    all.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), Broken)
        self.upstream = port
        self.mode = ""
        self.over = threading.Event()
        self.num_broken = 0


class Broken(socketserver.StreamRequestHandler):
    """A connection through the proxy."""

    server: Proxy  # pyright: ignore[reportIncompatibleVariableOverride]

    def handle(self) -> None:
        line = self.rfile.readline()
        head: dict[str, str] = {}
        while (field := self.rfile.readline().strip()) != b"":
            name, _, value = field.decode("latin-1").partition(":")
            head[name.strip().lower()] = value.strip()

        if not line:
            return

        body = self.rfile.read(int(head.get("content-length", "0")))
        mode = self.server.mode
        if mode:
            self.server.num_broken += 1
        if mode == "hang":
            self.server.over.wait(60)
            return

        if mode == "slow":
            self.server.over.wait(1.0)
        if mode in ANSWERS:
            self.wfile.write(
                b"HTTP/1.1 %s\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}" % ANSWERS[mode]
            )
            return

        status, answer = self.ask(line, head, body)
        if mode == "reset":
            # The server has done it; the answer is lost, so it is asked again.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return

        head_line = f"HTTP/1.1 {status} .\r\nContent-Type: application/json\r\n"
        self.wfile.write(
            f"{head_line}Content-Length: {len(answer)}\r\nConnection: close\r\n\r\n".encode()
            + answer
        )

    def ask(self, line: bytes, head: dict[str, str], body: bytes) -> tuple[int, bytes]:
        method, path, _ = line.decode("latin-1").split(" ", 2)
        connection = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=60)
        kept = {
            name: value
            for name, value in head.items()
            if name not in ("host", "connection", "accept-encoding")
        }
        connection.request(method, path, body, kept)
        response = connection.getresponse()
        return response.status, response.read()

    def finish(self) -> None:
        try:
            super().finish()
        except OSError:
            return


@pytest.fixture
def proxy(remote: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    proxy = Proxy(remote.port)
    monkeypatch.setattr(proxy, "handle_error", lambda *_: None)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{proxy.server_address[1]}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    yield proxy
    proxy.over.set()
    proxy.shutdown()
    proxy.server_close()


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def record(recorder: Recorder, steps: range, draw: random.Random) -> list[float]:
    """Record two metrics a step; return how long each call held this thread up, in seconds."""
    stalls = []
    for step in steps:
        began = time.perf_counter()
        recorder.log_metrics(
            {"train/loss": draw.random(), "train/gradient_norm": draw.random()}, step
        )
        stalls.append(time.perf_counter() - began)
    return stalls


@pytest.mark.parametrize("mode", MODES)
def test_every_metric_arrives_once_and_recording_does_not_wait(
    mode: str,
    proxy: Proxy,
    remote: Server,
    home: Path,
    recorded: Callable[..., Path],
    draw: random.Random,
    tell: Callable[[str], None],
) -> None:
    folder = recorded(f"run-{mode.replace(' ', '-')}", steps=0, is_finished=False)
    recorder = Recorder(folder)
    if mode == "down at start":
        remote.kill()

    outbox = Outbox.start(home, folder)
    breaks_at = draw.randrange(1, STEPS) if mode != "down at start" else 1
    stalls = record(recorder, range(1, breaks_at), draw)
    if mode != "down at start":
        wait_until(lambda: read_shipped(folder).cursor)

    if mode in PROXIED:
        proxy.mode = mode
    elif mode != "down at start":
        remote.kill()

    if mode == "restarted":
        remote.start()

    stalls += record(recorder, range(breaks_at, STEPS + 1), draw)
    if mode in PROXIED:
        wait_until(lambda: proxy.num_broken >= 2)

    recorder.finish("FINISHED")
    outbox.close(1.0)
    recorder.close()
    proxy.mode = ""
    proxy.over.set()
    if mode in ("down at start", "down midway"):
        remote.start()

    remote.wait()
    for outcome in sync(home):
        assert (outcome.outcome, outcome.error) == ("told", None)
    client = open_client(home)
    run_id = read_shipped(folder).run_id
    wanted = {
        (name, record.step, value)
        for record, _ in read_records(folder)
        if isinstance(record, Metrics)
        for name, value in record.values.items()
    }

    names = ("train/loss", "train/gradient_norm")
    rows = [
        (name, one.step, one.value)
        for name in names
        for one in client.get_metric_history(run_id, name)
    ]

    p99 = sorted(stalls)[int(0.99 * len(stalls))]
    tell(
        f"{len(rows):,} of {2 * STEPS:,} metrics, {len(rows) - len(set(rows))} duplicates; "
        f"recording took {p99 * 1e3:.2f} ms (p99)"
    )
    assert len(rows) == len(set(rows)) == 2 * STEPS
    assert set(rows) == wanted
    assert client.get_run(run_id).info.status == "FINISHED"
    assert p99 <= STALL_P99_SECONDS
    assert sync(home) == [], "nothing is told twice"


def test_kills_of_the_shipping_process_lose_and_double_nothing(
    remote: Server,
    home: Path,
    recorded: Callable[..., Path],
    draw: random.Random,
    tell: Callable[[str], None],
) -> None:
    folder = recorded("run-killed", steps=2000)
    for _ in range(KILLS):
        outbox = Outbox.start(home, folder)
        time.sleep(draw.uniform(1.0, 5.0))
        os.kill(outbox._process.pid, signal.SIGKILL)
        outbox.close(0)

    sync(home)
    run_id = read_shipped(folder).run_id
    client = open_client(home)
    steps = [metric.step for metric in client.get_metric_history(run_id, "train/loss")]
    tell(
        f"{KILLS} kills: {len(steps):,} of 2,000 metrics, {len(steps) - len(set(steps))} duplicates"
    )

    assert sorted(steps) == list(range(1, 2001))
    assert len(client.search_model_versions(f"run_id='{run_id}'")) == 1


KILLS = 10
