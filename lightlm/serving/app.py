"""The application: OpenAI's routes, health and metrics."""

import asyncio
import contextlib
import functools
import json
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lightlm.errors import LightLMError
from lightlm.json_object import JsonObject
from lightlm.redaction import redact
from lightlm.serving.choices import Piece, Postman, RequestTexts
from lightlm.serving.errors import SERVER_ERROR, ApiError, refuse_trouble
from lightlm.serving.metrics import Metrics
from lightlm.serving.requests import (
    ChatRequest,
    CompletionRequest,
    TextRequest,
    describe_errors,
)
from lightlm.serving.responses import (
    Answer,
    ChatShape,
    CompletionShape,
    Shape,
    describe_usage,
)
from lightlm.serving.texts import prepare_chat, prepare_completion
from lightlm.serving.tracing import Tracer
from lightlm.serving.versions import Limits, LoadedVersion, VersionPool, list_served
from lightlm.tracking.registry import ModelVersion
from lightlm.tracking.tags import MANIFEST_TAG

LOGGER = logging.getLogger("lightlm.serving")

STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Headers that keep proxies from holding a stream back."""

CLIENT_LEFT = 499
"""Status of an answer that no client reads; only the metrics show it."""

COUNTED_PATHS = ("/v1/completions", "/v1/chat/completions", "/v1/models", "/health", "/metrics")


@dataclass
class Server:
    """The parts that the routes share; made when the application starts."""

    pool: VersionPool
    metrics: Metrics
    tracer: Tracer | None = None

    def trace(self, body: TextRequest, texts: RequestTexts) -> RequestTexts:
        """Return the texts of a request, of which a trace is kept where that is asked for."""
        if self.tracer is not None:
            texts.when_finished = functools.partial(self.tracer.take, body)
        return texts


def build_application(
    home: Path,
    model: str | None,
    name: str | None,
    limits: Limits,
    when_ready: Callable[[LoadedVersion | None], None] = lambda loaded: None,
    *,
    is_traced: bool = False,
) -> FastAPI:
    """Return the application of a home; it starts with the version that `model` and `name` choose.

    `when_ready` gets that version, or None where none is registered yet. With `is_traced` MLflow
    keeps a trace of each request.
    """

    @contextlib.asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        postman = Postman(asyncio.get_running_loop())
        pool = VersionPool(home, model, name, limits, postman)
        tracer = Tracer(home) if is_traced else None
        app.state.server = Server(pool, Metrics(pool.read_states), tracer)
        when_ready(await load_first(pool))
        following = asyncio.create_task(pool.follow_aliases())
        try:
            yield
        finally:
            following.cancel()
            pool.close()
            if tracer is not None:
                await asyncio.to_thread(tracer.close)

    # No pages: they would load scripts from elsewhere.
    app = FastAPI(lifespan=live, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(RequestCounter)
    app.add_exception_handler(ApiError, answer_error)
    app.add_exception_handler(HTTPException, answer_error)
    app.add_exception_handler(RequestValidationError, answer_error)
    app.add_exception_handler(Exception, answer_error)
    app.get("/health")(show_health)
    app.get("/metrics")(show_metrics)
    app.get("/v1/models")(list_model_names)
    app.get("/v1/models/{wanted:path}")(show_model)
    app.post("/v1/completions")(complete)
    app.post("/v1/chat/completions")(chat)
    return app


async def load_first(pool: VersionPool) -> LoadedVersion | None:
    """Return the version of requests that name none; None where it cannot be had yet."""
    try:
        return await pool.find(None)
    except ApiError as error:
        LOGGER.warning("%s; requests are answered once a model is there", error)
        return None


def open_server(request: Request) -> Server:
    """Return the parts that the application made at its start."""
    return request.app.state.server


async def show_health(request: Request) -> Response:
    """Answer 200 while every engine runs."""
    is_healthy = open_server(request).pool.is_healthy()
    status = "ok" if is_healthy else "an engine has ended; see the log"
    return JSONResponse({"status": status}, 200 if is_healthy else 503)


async def show_metrics(request: Request) -> Response:
    """Answer with Prometheus' text format."""
    return Response(
        open_server(request).metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8"
    )


async def list_model_names(request: Request) -> JsonObject:
    """Answer with every name that a request may give as its model."""
    found = await read_names(open_server(request).pool)
    return {"object": "list", "data": [describe_model(name, one) for name, one in found]}


async def show_model(request: Request, wanted: str) -> JsonObject:
    """Answer with one model, by any name that a request may give."""
    return describe_model(wanted, await open_server(request).pool.look_up(wanted))


async def read_names(pool: VersionPool) -> list[tuple[str, ModelVersion]]:
    """Return every name with its version.

    Raises:
        ApiError: MLflow's store cannot be used.
    """
    try:
        return await asyncio.to_thread(list_served, pool.home, pool.name)
    except LightLMError as error:
        LOGGER.warning("%s", redact(str(error)))
        raise refuse_trouble() from None


def describe_model(name: str, version: ModelVersion) -> JsonObject:
    """Return a model as OpenAI's clients read it."""
    return {
        "id": name,
        "object": "model",
        "created": int(version.created_at.timestamp()),
        "owned_by": "lightlm",
        "root": version.uri,
    }


async def complete(request: Request, body: CompletionRequest) -> Response:
    """Continue the prompts of a request."""
    server = open_server(request)
    loaded = await server.pool.find(body.model)
    texts = server.trace(body, prepare_completion(loaded, body))
    answer = begin_answer(CompletionShape(), loaded, body.logprobs is not None, body.includes_usage)
    return await respond(request, texts, answer, is_stream=bool(body.stream))


async def chat(request: Request, body: ChatRequest) -> Response:
    """Answer a conversation, with a model that has a chat template."""
    server = open_server(request)
    loaded = await server.pool.find(body.model)
    texts = server.trace(body, prepare_chat(loaded, body))
    is_scored = body.num_alternatives is not None
    answer = begin_answer(ChatShape(), loaded, is_scored, body.includes_usage)
    return await respond(request, texts, answer, is_stream=bool(body.stream))


def begin_answer(
    shape: Shape, loaded: LoadedVersion, is_scored: bool, includes_usage: bool
) -> Answer:
    """Return an answer of a version; its fingerprint is that of the version's files."""
    fingerprint = f"fp_{loaded.version.tags.get(MANIFEST_TAG, '')[:12]}"
    return Answer.begin(
        shape, loaded.name, fingerprint, is_scored=is_scored, includes_usage=includes_usage
    )


async def respond(
    request: Request, texts: RequestTexts, answer: Answer, *, is_stream: bool
) -> Response:
    """Return the answer, whole or as a stream of server-sent events."""
    metrics = open_server(request).metrics
    texts.submit()
    if is_stream:
        return TextStream(texts, answer, metrics)

    try:
        collecting = asyncio.ensure_future(collect(texts))
        found = await run_unless_left(request, collecting)
    finally:
        texts.finish(metrics)

    if found is None:
        return Response(status_code=CLIENT_LEFT)
    usage = describe_usage(texts.num_prompt_tokens, texts.num_new_tokens)
    return JSONResponse(answer.finish(found, usage))


class TextStream(StreamingResponse):
    """An answer as server-sent events; its texts are cancelled once the client has left."""

    def __init__(self, texts: RequestTexts, answer: Answer, metrics: Metrics) -> None:
        events = write_events(texts, answer)
        super().__init__(events, media_type="text/event-stream", headers=STREAM_HEADERS)
        self.texts = texts
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; the generator of one that no client reads may never have begun."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.texts.finish(self.metrics)


async def collect(texts: RequestTexts) -> list[list[Piece]]:
    """Return the pieces of each choice."""
    found: list[list[Piece]] = [[] for _ in texts.choices]
    async for piece in texts.read():
        found[piece.choice].append(piece)
    return found


async def run_unless_left(
    request: Request, work: "asyncio.Future[list[list[Piece]]]"
) -> list[list[Piece]] | None:
    """Return what `work` returns, or None, `work` cancelled, once the client has left."""
    leaving = asyncio.ensure_future(wait_for_leave(request.receive))
    try:
        await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return await work if work.done() else None
    finally:
        work.cancel()
        leaving.cancel()
        await asyncio.gather(work, leaving, return_exceptions=True)


async def wait_for_leave(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def write_events(texts: RequestTexts, answer: Answer) -> AsyncIterator[bytes]:
    """Yield the server-sent events of an answer, `[DONE]` last; an error ends them early."""
    for choice in texts.choices:
        if (opened := answer.introduce(choice.index)) is not None:
            yield format_event(opened)

    try:
        async for piece in texts.read():
            if (shown := answer.show(piece)) is not None:
                yield format_event(shown)
    except ApiError as error:
        yield format_event(error.describe())
        return

    if answer.includes_usage:
        usage = describe_usage(texts.num_prompt_tokens, texts.num_new_tokens)
        yield format_event(answer.show_usage(usage))
    yield b"data: [DONE]\n\n"


def format_event(values: JsonObject) -> bytes:
    """Return a server-sent event."""
    return b"data: " + json.dumps(values, separators=(",", ":")).encode() + b"\n\n"


async def answer_error(request: Request, error: Exception) -> Response:
    """Return an error in OpenAI's shape."""
    if isinstance(error, ApiError):
        return error.respond()
    if isinstance(error, RequestValidationError):
        return describe_errors(error.errors()).respond()
    if isinstance(error, HTTPException):
        return explain_status(request, error).respond()
    # Starlette raises it again for the log.
    message = f"the server has a bug ({type(error).__name__}); see its log"
    return ApiError(500, message, kind=SERVER_ERROR).respond()


def explain_status(request: Request, error: HTTPException) -> ApiError:
    """Return the error of a path, a method or a body that no route takes."""
    path = request.url.path
    messages = {
        404: f"there is nothing at {path}; see /v1/models, /v1/completions and "
        "/v1/chat/completions",
        405: f"{path} does not take {request.method}",
    }
    message = messages.get(error.status_code, str(error.detail))
    return ApiError(error.status_code, message, headers=error.headers or {})


class RequestCounter:
    """Counts answered requests by path and status."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, and count it when its answer begins."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def count_and_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = scope["path"] if scope["path"] in COUNTED_PATHS else "other"
                metrics = scope["app"].state.server.metrics
                metrics.requests.labels(path, str(message["status"])).inc()
            await send(message)

        await self.app(scope, receive, count_and_send)
