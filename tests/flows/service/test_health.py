"""A container's check fails where a server lives and refuses every call."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from lightlm_flows.service.health import PROBES

LOGIN = "Basic bGlnaHRsbTpsb25nLXBhc3N3b3Jk"  # lightlm:long-password


class Server(BaseHTTPRequestHandler):
    """Answers as both servers do: 200 on /health to anybody, the rest for the password and under
    its name.
    """

    def do_GET(self) -> None:
        is_known = self.headers.get("Host", "").startswith("servers.example:")
        is_let_in = self.headers.get("Authorization") == LOGIN and is_known
        self.send_response(200 if self.path == "/health" or is_let_in else 401)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Server)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@pytest.fixture
def check(port: int) -> Callable[..., int]:
    def run(part: str, name: str = "servers.example", **environment: str) -> int:
        command = [
            sys.executable,
            "-P",
            "-m",
            "lightlm_flows.service.health",
            part,
            f"{name}:{port}",
        ]
        return subprocess.run(command, env=environment, check=False, timeout=30).returncode

    return run


def test_a_server_is_healthy_when_it_answers_a_call_with_its_password(
    check: Callable[..., int],
) -> None:
    assert check("mlflow", MLFLOW_AUTH_ADMIN_PASSWORD="long-password") == 0
    assert check("prefect", PREFECT_SERVER_API_AUTH_STRING="lightlm:long-password") == 0
    assert check("worker", "127.0.0.1") == 0


def test_a_server_that_lives_and_refuses_every_call_is_not_healthy(
    check: Callable[..., int],
) -> None:
    assert check("mlflow", MLFLOW_AUTH_ADMIN_PASSWORD="another-password") == 1
    assert check("mlflow", "unknown.example", MLFLOW_AUTH_ADMIN_PASSWORD="long-password") == 1
    assert check("prefect", PREFECT_SERVER_API_AUTH_STRING="lightlm:another") == 1


def test_a_port_on_which_nothing_listens_is_not_healthy() -> None:
    command = [sys.executable, "-P", "-m", "lightlm_flows.service.health", "worker", "127.0.0.1:9"]
    assert subprocess.run(command, check=False, timeout=30).returncode == 1
    assert set(PROBES) == {"prefect", "mlflow", "worker", "serve"}
