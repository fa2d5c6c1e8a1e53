"""The studio's application: its page, and the calls that the page makes."""

import asyncio
import contextlib
import importlib.metadata
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from lightlm.errors import BusyError, InputError, LightLMError
from lightlm.json_object import JsonObject
from lightlm.params import describe_wanted, load_params
from lightlm.redaction import redact
from lightlm.studio.jobs import OUT, Jobs
from lightlm.studio.live import LiveRuns
from lightlm.studio.models import describe_models, find_export, find_exports
from lightlm.studio.requests import (
    CommandRequest,
    CompareRequest,
    ExportRequest,
    LoginRequest,
    PlanRequest,
    RunName,
    TrainRequest,
    UploadRequest,
)
from lightlm.studio.sessions import Sessions
from lightlm.studio.uploads import Uploads
from lightlm.studio.writer import Writer

LOGGER = logging.getLogger("lightlm.studio")

PAGE = Path(__file__).with_name("page")

COOKIE_SECONDS = 30 * 86_400
"""Seconds that a browser keeps the cookie."""

REPORT = "report.html"


@dataclass
class Studio:
    """The parts that the calls share."""

    home: Path
    sessions: Sessions
    jobs: Jobs
    runs: LiveRuns
    uploads: Uploads
    writer: Writer


def build_studio(home: Path, sessions: Sessions) -> FastAPI:
    """Return the application of a home; it stands behind a StudioGuard."""
    jobs = Jobs(home)
    studio = Studio(home, sessions, jobs, LiveRuns(home, jobs), Uploads(home), Writer(home))

    @contextlib.asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await studio.writer.close()
            await asyncio.to_thread(studio.jobs.close)

    app = FastAPI(lifespan=live, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.studio = studio
    for kind in (LightLMError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, answer_error)

    app.get("/")(show_page)
    app.mount("/page", StaticFiles(directory=PAGE))
    app.post("/api/login")(log_in)
    app.post("/api/logout")(log_out)
    app.get("/api/state")(show_state)
    app.post("/api/uploads")(begin_upload)
    app.put("/api/uploads/{upload}/{name:path}")(add_file)
    app.post("/api/jobs")(start_job)
    app.get("/api/jobs/{job}")(show_job)
    app.delete("/api/jobs/{job}")(stop_job)
    app.get("/api/runs")(list_all_runs)
    app.post("/api/runs")(start_run)
    app.get("/api/runs/{run}")(show_run)
    app.post("/api/runs/{run}/stop")(stop_run)
    app.post("/api/runs/{run}/continue")(continue_run)
    app.get("/api/models")(list_all_models)
    app.post("/api/writer")(start_writer)
    app.post("/api/completions")(write_text)
    app.get("/documents/reports/{run}")(show_report)
    app.get("/documents/exports/{name}/{file:path}")(send_export)
    return app


def open_studio(request: Request) -> Studio:
    """Return the parts that the application made at its start."""
    return request.app.state.studio


async def show_page() -> Response:
    """Answer with the page; its files say themselves how long they hold."""
    return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})


async def log_in(request: Request, body: LoginRequest) -> Response:
    """Give the cookie and the token for a link's ticket or for the key."""
    sessions = open_studio(request).sessions
    is_good = bool(body.ticket) and sessions.spend_ticket(body.ticket or "")
    if not is_good and not (body.key and sessions.is_key(body.key)):
        what = "the link was used already, or is too old" if body.ticket else "this is not the key"
        return JSONResponse(
            {"error": f"{what}; give the key, or start `lightlm studio` again for a new link"}, 401
        )

    answer = JSONResponse({"token": sessions.token})
    answer.set_cookie(
        sessions.cookie_name,
        sessions.cookie,
        max_age=COOKIE_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.headers.get("origin", "").startswith("https:"),
    )
    return answer


async def log_out(request: Request) -> Response:
    """Take the cookie back."""
    answer = JSONResponse({})
    answer.delete_cookie(open_studio(request).sessions.cookie_name)
    return answer


async def show_state(request: Request) -> JsonObject:
    """Answer with what the page begins with."""
    params = load_params()
    return {
        "version": importlib.metadata.version("lightlm"),
        "home": str(open_studio(request).home),
        "dataset": params.dataset.source,
        "hours": params.budget.hours,
        "sample_prompt": params.training.sample_prompt,
        "sampling": params.generation.model_dump(mode="json"),
    }


async def begin_upload(request: Request, body: UploadRequest) -> JsonObject:
    """Make a folder for files."""
    return await asyncio.to_thread(open_studio(request).uploads.begin, body.label or "text")


async def add_file(request: Request, upload: str, name: str) -> JsonObject:
    """Take a file, as the body of the request."""
    num_bytes = int(request.headers.get("content-length", "0"))
    return await open_studio(request).uploads.add(upload, name, num_bytes, request.stream())


async def start_job(request: Request, body: CommandRequest) -> JsonObject:
    """Start a command that answers with JSON."""
    studio = open_studio(request)
    words = body.list_words()
    if isinstance(body, PlanRequest | CompareRequest) and body.measured:
        earlier = studio.jobs.find(body.measured)
        words.append(f"--probe-file={earlier.folder / OUT}")
    if isinstance(body, ExportRequest):
        folder = find_exports(studio.home) / body.folder
        if folder.exists():
            raise InputError(
                f"{body.name} {body.version} is exported as {body.to} already; its files are by "
                f"the version. To export it again, remove {folder}"
            )
        words.append(str(folder))
    return studio.jobs.start(body.kind, words).describe()


async def show_job(request: Request, job: str) -> JsonObject:
    """Answer with what a command does, and its result."""
    found = open_studio(request).jobs.find(job)
    return await asyncio.to_thread(found.describe)


async def stop_job(request: Request, job: str) -> JsonObject:
    """Ask a command to end."""
    return open_studio(request).jobs.stop(job).describe()


async def list_all_runs(request: Request) -> JsonObject:
    """Answer with the newest runs, and the trainings that are not seen as runs yet."""
    studio = open_studio(request)
    jobs = studio.jobs.list_trainings()
    runs = await asyncio.to_thread(studio.runs.list)
    return {"runs": runs, "trainings": [job.describe() | {"pid": job.process.pid} for job in jobs]}


async def start_run(request: Request, body: TrainRequest) -> JsonObject:
    """Start a training, which goes on without the studio."""
    jobs = open_studio(request).jobs
    return jobs.start(body.kind, body.list_words(), body.model_dump()).describe()


async def show_run(request: Request, run: RunName) -> JsonObject:
    """Answer with what a run does now."""
    return await asyncio.to_thread(open_studio(request).runs.look, run)


async def stop_run(request: Request, run: RunName) -> JsonObject:
    """Ask a run to end; what it reached stays."""
    await asyncio.to_thread(open_studio(request).runs.stop, run)
    return {}


async def continue_run(request: Request, run: RunName) -> JsonObject:
    """Start the same command again in the same folder, which continues the run."""
    studio = open_studio(request)
    started = await asyncio.to_thread(studio.runs.find_started, run)
    asked = started.request.model_copy(update={"is_fresh": False})
    return studio.jobs.start(
        asked.kind, asked.list_words(), asked.model_dump(), started.started_in
    ).describe()


async def list_all_models(request: Request) -> JsonObject:
    """Answer with the registered models."""
    return {"models": await asyncio.to_thread(describe_models, open_studio(request).home)}


async def start_writer(request: Request) -> JsonObject:
    """Start the writer, so that the first text does not wait for it."""
    await open_studio(request).writer.start()
    return {}


async def write_text(request: Request) -> Response:
    """Continue a text, as `/v1/completions` of `lightlm serve` does."""
    return await open_studio(request).writer.complete(await request.body())


async def show_report(request: Request, run: RunName) -> Response:
    """Answer with a run's report, which `lightlm report` has written."""
    path = open_studio(request).home / "runs" / run / REPORT
    if not path.is_file():
        raise InputError(f"there is no report of {run} yet; make it first")
    return FileResponse(path, media_type="text/html; charset=utf-8")


async def send_export(request: Request, name: str, file: str) -> Response:
    """Answer with a file of an export, to be saved."""
    path = await asyncio.to_thread(find_export, open_studio(request).home, name, file)
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


async def answer_error(request: Request, error: Exception) -> Response:
    """Return an error as the page reads it."""
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        places = [str(place) for place in first["loc"] if place != "body"]
        place = places[-1] if places else "body"
        return JSONResponse({"error": f"{place}: {describe_wanted(first)}"}, 400)
    if isinstance(error, HTTPException):
        return JSONResponse({"error": str(error.detail)}, error.status_code)

    status = 409 if isinstance(error, BusyError) else 400 if isinstance(error, InputError) else 503
    if status == 503:
        LOGGER.warning("%s", redact(str(error)))
    return JSONResponse({"error": redact(str(error))}, status)
