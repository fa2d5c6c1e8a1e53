"""The guard: requests of other pages, other hosts, and other programs are refused before anything runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from lightlm.studio.app import build_studio
from lightlm.studio.guard import MOST_BODY_BYTES, StudioGuard
from lightlm.studio.sessions import TOKEN_HEADER, Sessions
from tests.studio.conftest import HOST, KEY, ORIGIN, make_headers

CALLS = (
    ("GET", "/api/state"), ("GET", "/api/runs"), ("GET", "/api/runs/20260101-000000-abcdef"),
    ("GET", "/api/models"), ("GET", "/api/jobs/0123456789abcdef"), ("POST", "/api/jobs"),
    ("DELETE", "/api/jobs/0123456789abcdef"), ("POST", "/api/runs"), ("POST", "/api/uploads"),
    ("POST", "/api/runs/20260101-000000-abcdef/stop"), ("PUT", "/api/uploads/0123456789ab/a.txt"),
    ("POST", "/api/runs/20260101-000000-abcdef/continue"), ("POST", "/api/writer"),
    ("POST", "/api/completions"), ("POST", "/api/logout"),
    ("GET", "/documents/reports/20260101-000000-abcdef"), ("GET", "/documents/exports/a/b"),
)  # fmt: skip


@pytest.fixture(scope="module")
def sessions() -> Sessions:
    return Sessions(KEY)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, sessions: Sessions) -> Iterator[TestClient]:
    """Return a client that sends nothing by itself."""
    home = tmp_path_factory.mktemp("guarded")
    guarded = StudioGuard(build_studio(home, sessions), sessions, [HOST])
    with TestClient(guarded, base_url=ORIGIN) as opened:
        yield opened


def test_every_call_of_the_application_is_among_those_tried(home: Path, sessions: Sessions) -> None:
    routes = build_studio(home, sessions).routes
    paths = {route.path for route in routes if getattr(route, "methods", None)}  # type: ignore[attr-defined]
    assert len(paths - {"/", "/api/login"}) == len({path for _, path in CALLS}), paths


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize("missing", ["Cookie", TOKEN_HEADER])
def test_a_call_needs_cookie_and_token(
    client: TestClient, sessions: Sessions, method: str, path: str, missing: str
) -> None:
    headers = {name: value for name, value in make_headers(sessions).items() if name != missing}
    answer = client.request(method, path, headers=headers)
    if missing == TOKEN_HEADER and path.startswith("/documents/"):
        assert (
            answer.status_code == 400
        )  # a page that is opened sends no header; there is no report
    else:
        assert answer.status_code == 401
        assert "log in" in answer.json()["error"]


@pytest.mark.parametrize(
    "changes",
    [
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:9000"},
        {"Origin": None}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)  # fmt: skip
def test_a_change_that_another_page_asks_for_is_refused(
    client: TestClient, sessions: Sessions, changes: dict[str, str | None]
) -> None:
    headers = {
        name: value
        for name, value in (make_headers(sessions) | changes).items()
        if value is not None
    }
    answer = client.post("/api/uploads", json={"label": "x"}, headers=headers)
    assert answer.status_code == 403
    assert client.post("/api/uploads", json={}, headers=make_headers(sessions)).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:8701", "127.0.0.1", ""])
def test_another_host_is_refused_even_for_the_page(client: TestClient, host: str) -> None:
    answer = client.get("/", headers={"Host": host})
    assert answer.status_code == 403
    assert "--allowed-hosts" in answer.json()["error"]


def test_a_body_that_is_too_long_is_refused_with_and_without_a_length(
    client: TestClient, sessions: Sessions
) -> None:
    body = b'{"label": "' + b"x" * MOST_BODY_BYTES + b'"}'
    headers = make_headers(sessions) | {"Content-Type": "application/json"}
    assert client.post("/api/uploads", content=body, headers=headers).status_code == 413
    assert client.post("/api/uploads", content=iter([body]), headers=headers).status_code == 413


def test_the_page_may_run_its_own_files_alone_and_no_other_page_may_show_it(
    client: TestClient,
) -> None:
    for path in ("/", "/page/app.js", "/api/state"):
        headers = client.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_the_key_and_a_ticket_log_in_and_a_wrong_word_does_not(
    client: TestClient, sessions: Sessions
) -> None:
    origin = {"Origin": ORIGIN}
    assert client.post("/api/login", json={"key": f"{KEY}!"}, headers=origin).status_code == 401
    assert client.post("/api/login", json={}, headers=origin).status_code == 401
    assert client.post("/api/login", json={"key": KEY}).status_code == 403, "without an origin"

    ticket = sessions.issue_ticket()
    for credentials in ({"key": KEY}, {"ticket": ticket}):
        client.cookies.clear()
        answer = client.post("/api/login", json=credentials, headers=origin)
        assert answer.json() == {"token": sessions.token}
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith(f"{sessions.cookie_name}=")
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert client.get("/api/state", headers={TOKEN_HEADER: sessions.token}).status_code == 200
    client.cookies.clear()

    again = client.post("/api/login", json={"ticket": ticket}, headers=origin)
    assert again.status_code == 401
    assert "used already" in again.json()["error"]
