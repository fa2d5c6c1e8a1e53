"""The studio of a home inside of this process, and what its page sends with each request."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from lightlm.studio.app import build_studio
from lightlm.studio.guard import StudioGuard
from lightlm.studio.sessions import TOKEN_HEADER, Sessions
from tests.serving.conftest import Registered, model_folders, registered

__all__ = ["Registered", "model_folders", "registered"]

KEY = "a-key-for-tests"
HOST = "127.0.0.1:8700"
ORIGIN = f"http://{HOST}"
SECONDS = 120
"""Only bounds a failure."""


@dataclass(frozen=True)
class Page:
    """A client that has logged in, as the page has."""

    client: httpx.Client
    home: Path

    def get(self, path: str) -> Any:
        """Return the JSON of a call."""
        return self._read(self.client.get(path))

    def post(self, path: str, body: object = None) -> Any:
        """Return the JSON of a call."""
        return self._read(self.client.post(path, json=body or {}))

    def run(self, **request: object) -> Any:
        """Run a command to its end; return its job."""
        job = self.post("/api/jobs", request)
        deadline = time.monotonic() + SECONDS
        while job["state"] == "running":
            assert time.monotonic() < deadline
            time.sleep(0.1)
            job = self.get(f"/api/jobs/{job['id']}")
        return job

    def _read(self, answer: httpx.Response) -> Any:
        assert answer.status_code == 200, answer.text
        return answer.json()


def make_headers(sessions: Sessions) -> dict[str, str]:
    """Return the headers of a request of the page."""
    return {
        "Origin": ORIGIN,
        TOKEN_HEADER: sessions.token,
        "Cookie": f"{sessions.cookie_name}={sessions.cookie}",
    }


def open_page(home: Path) -> Iterator[Page]:
    """Yield a page of a home's studio; at the end the studio ends."""
    sessions = Sessions(KEY)
    guarded = StudioGuard(build_studio(home, sessions), sessions, [HOST])
    with TestClient(guarded, base_url=ORIGIN, headers=make_headers(sessions)) as client:
        yield Page(client, home)


@pytest.fixture
def page(home: Path) -> Iterator[Page]:
    """Return a page whose home is empty."""
    yield from open_page(home)


@pytest.fixture
def registered_page(registered: Registered, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """Return a page whose home has two versions."""
    monkeypatch.setenv("LIGHTLM_HOME", str(registered.home))
    yield from open_page(registered.home)
