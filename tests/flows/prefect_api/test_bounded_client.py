"""Prefect's client against a server that answers slowly, for ever, or asks for patience: a real
socket on loopback.
"""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from prefect.settings import temporary_settings

from lightlm.budget import allowance as allowance_module
from lightlm.budget.allowance import Patience
from lightlm_flows.prefect_api.bounded_client import BoundAsyncClient, BoundSyncClient

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
Answer = Callable[[socket.socket], None]


def hang(connection: socket.socket) -> None:
    connection.recv(1)


def drip(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
    for _ in range(1000):
        connection.sendall(b" ")
        time.sleep(0.02)


def never_end(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")


def ask_for_patience(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 429 Too Many\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n")


def be_well(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")


@contextlib.contextmanager
def serve(answer: Answer) -> Iterator[str]:
    """Give the URL of a server that answers each connection so, once its request has come."""

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

    def handle(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.recv(65536)
            answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


def ask(url: str, patience: Patience, *, is_async: bool) -> httpx.Response:
    """Return what a GET is answered with by either of Prefect's clients."""

    async def ask_later() -> httpx.Response:
        async with BoundAsyncClient(patience=patience, enable_csrf_support=False) as client:
            return await client.get(url)

    if is_async:
        return asyncio.run(ask_later())
    with BoundSyncClient(patience=patience, enable_csrf_support=False) as client:
        return client.get(url)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(allowance_module, "REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(allowance_module, "LEAST_REQUEST_SECONDS", 0.1)
    with temporary_settings({"client.max_retries": 0}):  # pyright: ignore[reportArgumentType]
        yield


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("answer", [hang, drip, never_end])
def test_an_answer_that_does_not_end_in_time_is_a_time_out(answer: Answer, is_async: bool) -> None:
    patience = Patience()
    with serve(answer) as url, pytest.raises(httpx.TimeoutException):
        ask(url, patience, is_async=is_async)
    assert patience.request_seconds() == 0.1, "and the next request does not wait as long"


@pytest.mark.parametrize("is_async", [False, True])
def test_a_server_that_asks_to_be_asked_later_is_not_waited_for(is_async: bool) -> None:
    with serve(ask_for_patience) as url, pytest.raises(httpx.HTTPStatusError, match="429"):
        ask(url, Patience(), is_async=is_async)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_server_that_answers_is_heard_and_has_the_usual_patience_again(is_async: bool) -> None:
    patience = Patience()
    patience.note(is_answered=False)
    with serve(be_well) as url:
        assert ask(url, patience, is_async=is_async).json() == {}
    assert patience.request_seconds() == 0.3
