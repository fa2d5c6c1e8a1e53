"""Walks every call that MLflow registers in this environment, and prints what LightLM's server
answers to it, as JSON.

A process of its own, because MLflow reads its environment when it is imported. Nothing listens: the
application is called in process. `python walk_mlflow.py HOST:PORT,HOST:PORT`
"""

import asyncio
import json
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
from starlette.routing import Mount, WebSocketRoute

from lightlm.tracking.mlflow_routes import REFUSED, AllowedCalls
from lightlm.tracking.mlflow_server import build_application


def walk_native(routes: list[Any]) -> Iterator[tuple[str, str]]:
    """Yield (method, rule) of FastAPI's routes, in Flask's spelling; newer FastAPIs keep routers as
    they were added.
    """
    for route in routes:
        if hasattr(route, "effective_candidates"):
            yield from walk_native(route.effective_candidates())
            continue
        route = getattr(route, "starlette_route", None) or route
        if isinstance(route, Mount):
            continue  # Flask's application, walked by its own map
        rule = re.sub(r"\{(\w+)\}", r"<\1>", re.sub(r"\{(\w+):path\}", r"<path:\1>", route.path))
        methods = (
            ["WEBSOCKET"] if isinstance(route, WebSocketRoute) else sorted(route.methods - {"HEAD"})
        )
        yield from ((method, rule) for method in methods)


def walk(application: AllowedCalls) -> list[tuple[str, str]]:
    """Return every (method, rule) of both of MLflow's applications."""
    from mlflow.server import app as flask_application

    native: Any = application.application
    found = set(walk_native(native.routes))
    for rule in flask_application.url_map.iter_rules():
        found |= {(method, rule.rule) for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    return sorted(found)


async def ask_all(application: AllowedCalls, host: str) -> list[dict[str, Any]]:
    """Return what each call is answered, without a password."""
    answers = []
    transport = httpx.ASGITransport(application)  # pyright: ignore[reportArgumentType]
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
        for method, rule in walk(application):
            path = re.sub(r"<[^>]+>", "one", re.sub(r"<path:[^>]+>", "one/two", rule))
            answer = await client.request(method, path)
            is_refused = (answer.status_code, answer.content) == (404, REFUSED)
            answers.append(
                {
                    "method": method,
                    "rule": rule,
                    "status": answer.status_code,
                    "reaches_mlflow": not is_refused,
                }
            )

    return answers


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    names = sys.argv[1].split(",")
    sys.stdout.write(json.dumps(asyncio.run(ask_all(build_application(names), names[0]))))
