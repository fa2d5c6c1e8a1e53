"""Routes of MLflow's server that LightLM allows; all others answer 404.

MLflow is more than a tracking server: an assistant whose tools are a shell, jobs, a gateway to
other providers, webhooks. A list of allowed routes stays right when a new version adds more.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_PAGES = """
GET    /
GET    /health
GET    /version
GET    /static-files/<path:path>
GET    /get-artifact
GET    /model-versions/get-artifact
POST   /graphql
POST   /v1/traces
GET    /ajax-api/2.0/mlflow/get-trace-artifact
GET    /ajax-api/3.0/mlflow/get-trace-artifact
GET    /ajax-api/2.0/mlflow/metrics/get-history-bulk
POST   /ajax-api/2.0/mlflow/experiments/search-datasets
GET    /ajax-api/2.0/mlflow/logged-models/<model_id>/artifacts/files
"""
"""Calls with one address. `/graphql` reads runs and experiments; `/v1/traces` is where the client
sends spans.
"""

_BOTH = """
POST   2.0/mlflow/experiments/create
POST   2.0/mlflow/experiments/delete
POST   2.0/mlflow/experiments/delete-experiment-tag
GET    2.0/mlflow/experiments/get
GET    2.0/mlflow/experiments/get-by-name
POST   2.0/mlflow/experiments/restore
GET    2.0/mlflow/experiments/search
POST   2.0/mlflow/experiments/search
POST   2.0/mlflow/experiments/set-experiment-tag
POST   2.0/mlflow/experiments/update
POST   2.0/mlflow/runs/create
POST   2.0/mlflow/runs/delete
POST   2.0/mlflow/runs/delete-tag
GET    2.0/mlflow/runs/get
POST   2.0/mlflow/runs/log-batch
POST   2.0/mlflow/runs/log-inputs
POST   2.0/mlflow/runs/log-metric
POST   2.0/mlflow/runs/log-model
POST   2.0/mlflow/runs/log-parameter
POST   2.0/mlflow/runs/outputs
POST   2.0/mlflow/runs/restore
POST   2.0/mlflow/runs/search
POST   2.0/mlflow/runs/set-tag
POST   2.0/mlflow/runs/update
GET    2.0/mlflow/metrics/get-history
GET    2.0/mlflow/metrics/get-history-bulk-interval
GET    2.0/mlflow/artifacts/list
GET    2.0/mlflow-artifacts/artifacts
GET    2.0/mlflow-artifacts/artifacts/<path:artifact_path>
PUT    2.0/mlflow-artifacts/artifacts/<path:artifact_path>
DELETE 2.0/mlflow-artifacts/artifacts/<path:artifact_path>
GET    2.0/mlflow-artifacts/presigned/<path:artifact_path>
POST   2.0/mlflow-artifacts/mpu/abort/<path:artifact_path>
POST   2.0/mlflow-artifacts/mpu/complete/<path:artifact_path>
POST   2.0/mlflow-artifacts/mpu/create/<path:artifact_path>
POST   2.0/mlflow/logged-models
POST   2.0/mlflow/logged-models/search
GET    2.0/mlflow/logged-models/<model_id>
PATCH  2.0/mlflow/logged-models/<model_id>
DELETE 2.0/mlflow/logged-models/<model_id>
POST   2.0/mlflow/logged-models/<model_id>/params
PATCH  2.0/mlflow/logged-models/<model_id>/tags
DELETE 2.0/mlflow/logged-models/<model_id>/tags/<tag_key>
GET    2.0/mlflow/logged-models/<model_id>/artifacts/directories
POST   2.0/mlflow/registered-models/create
DELETE 2.0/mlflow/registered-models/delete
DELETE 2.0/mlflow/registered-models/delete-tag
GET    2.0/mlflow/registered-models/get
GET    2.0/mlflow/registered-models/get-latest-versions
POST   2.0/mlflow/registered-models/get-latest-versions
POST   2.0/mlflow/registered-models/rename
GET    2.0/mlflow/registered-models/search
POST   2.0/mlflow/registered-models/set-tag
PATCH  2.0/mlflow/registered-models/update
GET    2.0/mlflow/registered-models/alias
POST   2.0/mlflow/registered-models/alias
DELETE 2.0/mlflow/registered-models/alias
POST   2.0/mlflow/model-versions/create
DELETE 2.0/mlflow/model-versions/delete
DELETE 2.0/mlflow/model-versions/delete-tag
GET    2.0/mlflow/model-versions/get
GET    2.0/mlflow/model-versions/get-download-uri
GET    2.0/mlflow/model-versions/search
POST   2.0/mlflow/model-versions/set-tag
POST   2.0/mlflow/model-versions/transition-stage
PATCH  2.0/mlflow/model-versions/update
GET    2.0/mlflow/traces
POST   2.0/mlflow/traces
POST   2.0/mlflow/traces/delete-traces
POST   2.0/mlflow/traces/link-to-run
PATCH  2.0/mlflow/traces/<request_id>
GET    2.0/mlflow/traces/<request_id>/info
PATCH  2.0/mlflow/traces/<request_id>/tags
DELETE 2.0/mlflow/traces/<request_id>/tags
POST   3.0/mlflow/traces
GET    3.0/mlflow/traces/get
GET    3.0/mlflow/traces/batchGet
POST   3.0/mlflow/traces/batchGetInfos
POST   3.0/mlflow/traces/calculate-filter-correlation
POST   3.0/mlflow/traces/delete-traces
POST   3.0/mlflow/traces/metrics
POST   3.0/mlflow/traces/search
GET    3.0/mlflow/traces/<trace_id>
PATCH  3.0/mlflow/traces/<trace_id>/tags
DELETE 3.0/mlflow/traces/<trace_id>/tags
POST   3.0/mlflow/traces/<trace_id>/assessments
GET    3.0/mlflow/traces/<trace_id>/assessments/<assessment_id>
PATCH  3.0/mlflow/traces/<trace_id>/assessments/<assessment_id>
DELETE 3.0/mlflow/traces/<trace_id>/assessments/<assessment_id>
GET    3.0/mlflow/server-info
GET    3.0/mlflow/users/current/permissions
GET    2.0/mlflow/users/current
GET    2.0/mlflow/users/get
GET    2.0/mlflow/users/list
POST   2.0/mlflow/users/create
DELETE 2.0/mlflow/users/delete
PATCH  2.0/mlflow/users/update-admin
PATCH  2.0/mlflow/users/update-password
"""
"""Calls that the Python client makes under /api/, and MLflow's pages under /ajax-api/."""

REFUSED = b"LightLM does not serve this part of MLflow.\n"
FOREIGN = b"This page may not call MLflow: it was not loaded from this server.\n"


def _read_table() -> frozenset[tuple[str, str]]:
    rows = [line.split() for line in _PAGES.split("\n") if line]
    rows += [[method, f"/{api}/{path}"] for method, path in map(str.split, _BOTH.split("\n")[1:-1])
             for api in ("api", "ajax-api")]  # fmt: skip
    return frozenset((method, path) for method, path in rows)


ALLOWED = _read_table()
"""(method, rule) as MLflow registers them: `<name>` is one part of a path, `<path:name>` one or
more.
"""


def _compile(method: str) -> re.Pattern[str]:
    patterns = [
        "".join(
            (".+" if part.startswith("<path:") else "[^/]+")
            if part.startswith("<")
            else re.escape(part)
            for part in re.split(r"(<[^>]+>)", rule)
        )
        for known, rule in sorted(ALLOWED)
        if known == method
    ]
    return re.compile("|".join(patterns))


_PATTERNS = {method: _compile(method) for method in sorted({method for method, _ in ALLOWED})}


def is_allowed(method: str, path: str) -> bool:
    """Return whether a call reaches MLflow; HEAD is a GET without its body."""
    pattern = _PATTERNS.get("GET" if method == "HEAD" else method)
    return pattern is not None and pattern.fullmatch(path) is not None


def list_origins(names: Iterable[str]) -> frozenset[str]:
    """Return the origins of the pages that a server shows under these HOST:PORT, behind a proxy
    that speaks TLS too.
    """
    return frozenset(
        f"{scheme}://{name.removesuffix(default)}"
        for name in names
        for scheme, default in (("http", ":80"), ("https", ":443"))
    )


class AllowedCalls:
    """MLflow's application behind the list: what is not on it, or comes from another page, never
    reaches MLflow.
    """

    def __init__(self, application: Application, names: Iterable[str]) -> None:
        """`names` are the HOST:PORT under which the server's own pages are seen."""
        self.application = application
        self.origins = list_origins(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a connection, or hand it on. MLflow has no WebSocket; its lifespan looks after the
        assistant alone.
        """
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            origins = {
                value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"
            }
            if not is_allowed(scope["method"], scope["path"]):
                await _answer(send, 404, REFUSED)
            elif origins - self.origins:
                await _answer(send, 403, FOREIGN)
            else:
                await self.application(scope, receive, send)


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
