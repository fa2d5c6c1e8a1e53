"""The writer: `lightlm serve`'s engine in a process of its own, and the way of requests to it.

So the page's process never imports torch, and a model that takes all memory takes the writer alone.
"""

import asyncio
import json
import secrets
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
from starlette.responses import Response, StreamingResponse

from lightlm.child_process import end_child, start_child
from lightlm.errors import LightLMError
from lightlm.store.disk import explain_refusals

MODULE = "lightlm.studio.writer_process"

ADDRESS = "127.0.0.1"

END_SECONDS = 5.0
"""Seconds that the writer gets to end."""

KEY_VARIABLE = "LIGHTLM_WRITER_KEY"


class Writer:
    """The writer of a home; it starts at the first request."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._process: subprocess.Popen[str] | None = None
        self._client: httpx.AsyncClient | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> httpx.AsyncClient:
        """Return a client of the running writer.

        Raises:
            LightLMError: it did not start.
        """
        async with self._starting:
            if self._client is not None and self._process and self._process.poll() is None:
                return self._client
            await self.close()
            self._process, self._client = await asyncio.to_thread(open_writer, self.home)
            return self._client

    async def complete(self, body: bytes) -> Response:
        """Return the answer of `/v1/completions`, as it comes.

        Raises:
            LightLMError: the writer did not start, or ended.
        """
        client = await self.start()
        request = client.build_request(
            "POST", "/v1/completions", content=body, headers={"Content-Type": "application/json"}
        )
        try:
            answer = await client.send(request, stream=True)
        except httpx.HTTPError as error:
            raise LightLMError(
                f"the writer ended ({type(error).__name__}); its log is {name_log(self.home)}"
            ) from None
        return StreamingResponse(
            pass_on(answer),
            answer.status_code,
            media_type=answer.headers.get("content-type"),
            headers={"X-Accel-Buffering": "no"},
        )

    async def close(self) -> None:
        """End the writer."""
        client, self._client = self._client, None
        process, self._process = self._process, None
        if client is not None:
            await client.aclose()
        if process is not None:
            await asyncio.to_thread(end_child, process, END_SECONDS)


async def pass_on(answer: httpx.Response) -> AsyncIterator[bytes]:
    """Yield an answer's bytes as they come; the writer stops where the page has left."""
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    except httpx.HTTPError:
        return
    finally:
        await answer.aclose()


def name_log(home: Path) -> Path:
    """Return the path of the writer's log."""
    return home / "studio" / "writer.log"


def open_writer(home: Path) -> tuple["subprocess.Popen[str]", httpx.AsyncClient]:
    """Start the writer; return its process and a client once it answers.

    Raises:
        LightLMError: it did not start.
    """
    key = secrets.token_urlsafe(32)
    with socket.create_server((ADDRESS, 0)) as taken:
        port = taken.getsockname()[1]
    log = name_log(home)
    with explain_refusals(log):
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        place = json.dumps({"home": str(home), "port": port})
        process = start_child(MODULE, place, log=log, environment={KEY_VARIABLE: key})

    assert process.stdout is not None
    if not process.stdout.readline():
        end_child(process, END_SECONDS)
        raise LightLMError(f"the writer did not start; its log is {log}")
    client = httpx.AsyncClient(
        base_url=f"http://{ADDRESS}:{port}",
        headers={"Authorization": f"Bearer {key}"},
        timeout=None,  # noqa: S113 (a long text takes as long as it takes; leaving ends it)
        trust_env=False,
    )
    return process, client
