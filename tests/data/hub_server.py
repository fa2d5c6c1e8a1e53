"""A stand-in for the Hugging Face Hub: the requests that huggingface_hub makes to read a data set and
to upload a model, over HTTP.
"""

import base64
import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

COMMIT = "a" * 40


class Content(Protocol):
    """A file: bytes, or what makes them when they are asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> bytes: ...


@dataclass(frozen=True)
class Sparse:
    """A file of any length of which beginning and end alone exist; between them are zeros."""

    head: bytes
    tail: bytes
    size: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self.size)
        zeros = self.size - len(self.tail)
        body = self.head[start:stop].ljust(min(stop, zeros) - start, b"\0")
        return body + self.tail[max(0, start - zeros) : max(0, stop - zeros)]


Repositories = Mapping[str, Mapping[str, Content]]


@contextmanager
def serve_hub(
    repositories: Repositories, delay_seconds: float = 0.0, faults: list[str] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Serve {repository: {file: content}}; yield the endpoint and the list of requests made, each
    with the range that it asks for.

    Each request for a range meets the next of `faults`, "" is none: "cut" breaks the connection,
    "short" sends less than was asked for, "long" more, "packed" it packed, "other" another range,
    and a number is a status.
    """
    requests: list[str] = []
    faults = faults if faults is not None else []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_POST(self) -> None:
            """Answer with the sizes of files, which a form names."""
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            repository = urlsplit(self.path).path.split("/paths-info/")[0]
            files = repositories[repository.removeprefix("/api/datasets/")]
            self._send_json(
                [
                    {"type": "file", "path": name, "size": len(files[name]), "oid": COMMIT}
                    for name in form["paths"]
                ]
            )

        def log_message(self, format: str, *args: object) -> None:
            wanted = self.headers.get("Range", "")
            requests.append(f"{self.command} {self.path} {wanted}".strip())

        def _answer(self, *, with_body: bool) -> None:
            time.sleep(delay_seconds)
            path = unquote(urlsplit(self.path).path)
            if path.startswith("/api/datasets/"):
                self._describe(path.removeprefix("/api/datasets/").partition("/revision/"))
            elif path.startswith("/datasets/") and "/resolve/" in path:
                repository, _, rest = path.removeprefix("/datasets/").partition("/resolve/")
                content = repositories.get(repository, {}).get(rest.partition("/")[2])
                if content is None:
                    self._refuse("EntryNotFound")
                elif found := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
                    self._send_range(content, int(found[1]), int(found[2]) + 1)
                else:
                    assert isinstance(content, bytes), "all of a file that does not exist"
                    etag = f'"{hashlib.sha256(content).hexdigest()}"'
                    self._send(content if with_body else b"", {"ETag": etag}, len(content))
            else:
                self._refuse("RepoNotFound")

        def _send_range(self, content: Content, start: int, stop: int) -> None:
            fault = faults.pop(0) if faults else ""
            if fault.isdigit():
                self._send(b"", {"Retry-After": "0.1"}, 0, int(fault))
                return
            start += fault == "other"
            body = content[start:stop]
            place = {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
            if fault == "short":
                body = body[:-1]
            if fault == "long":
                body += bytes(1 << 20)
            if fault == "packed":
                place["Content-Encoding"] = "gzip"
            if fault == "cut":
                self._send(body[: len(body) // 2], place, len(body), 206)
                self.close_connection = True
            else:
                self._send(body, place, len(body), 206)

        def _describe(self, parts: tuple[str, str, str]) -> None:
            repository, _, revision = parts
            if repository not in repositories:
                self._refuse("RepoNotFound")
            elif revision not in ("", "main", COMMIT):
                self._refuse("RevisionNotFound")
            else:
                siblings = [{"rfilename": name} for name in repositories[repository]]
                body = {
                    "id": repository,
                    "sha": COMMIT,
                    "siblings": siblings,
                    "private": False,
                    "tags": [],
                }
                self._send_json(body)

        def _send_json(self, body: Any) -> None:
            content = json.dumps(body).encode()
            self._send(content, {"Content-Type": "application/json"}, len(content))

        def _send(
            self, body: bytes, headers: dict[str, str], length: int, status: int = 200
        ) -> None:
            self.send_response(status)
            for name, value in (
                {"X-Repo-Commit": COMMIT, "Content-Length": str(length)} | headers
            ).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def _refuse(self, code: str) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=lambda: server.serve_forever(0.01), daemon=True)
    thread.start()

    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def count_asked_bytes(requests: list[str]) -> int:
    """Return how many bytes the ranges of requests hold."""
    ranges = [re.search(r"bytes=(\d+)-(\d+)", request) for request in requests]
    return sum(int(found[2]) + 1 - int(found[1]) for found in ranges if found)


LICENSES = ("apache-2.0", "mit", "cc-by-4.0", "other", "unknown")
LARGE_BYTES = 100_000
"""Files from this size on are uploaded by the protocol of Git LFS."""


@dataclass
class Repository:
    """A model's repository: its files, and the messages of its commits."""

    is_private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


@dataclass
class ModelHub:
    """What the Hub knows: `tokens` are the roles by token, `owners` who may be written to."""

    tokens: dict[str, str] = field(default_factory=lambda: {"hf_writer": "write"})
    owners: tuple[str, ...] = ("jane", "team")
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    refuses: dict[str, int] = field(default_factory=dict)
    """Part of a path -> the status that requests to it get."""
    endpoint: str = ""

    def answer(self, method: str, path: str, token: str, body: bytes) -> tuple[int, Any]:
        """Return the status and the JSON of a request."""
        self.requests.append(f"{method} {path}")
        for part, status in self.refuses.items():
            if part in path:
                return status, {"error": "refused on purpose"}
        if path.startswith("/objects/"):
            self.objects[path.removeprefix("/objects/")] = body
            return 200, {}
        if token not in self.tokens:
            return 401, {"error": "Invalid credentials"}
        return self._answer_known(path, body, self.tokens[token])

    def _answer_known(self, path: str, body: bytes, role: str) -> tuple[int, Any]:
        if path == "/api/whoami-v2":
            teams = [{"name": name, "roleInOrg": "write"} for name in self.owners[1:]]
            teams.append({"name": "readers", "roleInOrg": "read"})
            return 200, {"name": "jane", "orgs": teams, "auth": {"accessToken": {"role": role}}}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._validate(json.loads(body)["content"])

        identity = "/".join(path.removeprefix("/api/models/").lstrip("/").split("/")[:2])
        repository = self.repositories.get(identity.removesuffix(".git"))
        if repository is None:
            return 404, {"error": "Repository not found"}
        if path.endswith("/objects/batch"):
            return 200, self._prepare(json.loads(body)["objects"])
        if "/preupload/" in path:
            return 200, {"files": [choose_mode(one) for one in json.loads(body)["files"]]}
        if "/commit/" in path:
            self._commit(repository, [json.loads(line) for line in body.splitlines()])
            url = f"{self.endpoint}/{identity}/commit/{COMMIT}"
            return 200, {"commitUrl": url, "commitOid": COMMIT, "pullRequestUrl": None}
        if "/tree/" in path:
            return 200, [
                {"type": "file", "path": name, "size": len(content), "oid": COMMIT}
                for name, content in repository.files.items()
            ]
        siblings = [{"rfilename": name} for name in repository.files]
        return 200, {
            "id": identity, "sha": COMMIT, "siblings": siblings, "private": repository.is_private
        }  # fmt: skip

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        owner = wanted["organization"] or "jane"
        identity = f"{owner}/{wanted['name']}"
        if owner not in self.owners:
            return 403, {"error": f"You don't have the rights to create a model in {owner}"}
        if identity in self.repositories:
            return 409, {"error": "You already created this model repo"}
        is_private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        files = {".gitattributes": b"*.safetensors filter=lfs"}
        self.repositories[identity] = Repository(is_private, files)
        return 200, {"url": f"{self.endpoint}/{identity}", "name": identity}

    def _validate(self, content: str) -> tuple[int, Any]:
        """Hold what the Hub requires of a card: a known license, complete results."""
        header = yaml.safe_load(content.split("---")[1])
        errors = []
        if header.get("license") not in LICENSES:
            errors.append(f'"license" must be one of [{", ".join(LICENSES)}]')
        for model in header.get("model-index", []):
            for result in model["results"]:
                named = [result["task"]["type"], result["dataset"]["type"]]
                named += [one["type"] for one in result["metrics"]]
                values = [one["value"] for one in result["metrics"]]
                if not (all(named) and values and result["dataset"]["name"]):
                    errors.append('"model-index" is incomplete')
        return (400 if errors else 200), {"errors": [{"message": one} for one in errors]}

    def _prepare(self, objects: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "transfer": "basic",
            "objects": [
                one
                if one["oid"] in self.objects
                else one
                | {"actions": {"upload": {"href": f"{self.endpoint}/objects/{one['oid']}"}}}
                for one in objects
            ],
        }

    def _commit(self, repository: Repository, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                repository.messages.append(value["summary"])
            elif line["key"] == "lfsFile":
                content = self.objects[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                repository.files[value["path"]] = content
            else:
                repository.files[value["path"]] = base64.b64decode(value["content"])


def choose_mode(file: dict[str, Any]) -> dict[str, Any]:
    """Return how a file is to be uploaded."""
    mode = "lfs" if file["size"] >= LARGE_BYTES else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}


@contextmanager
def serve_models(hub: ModelHub) -> Iterator[ModelHub]:
    """Serve a Hub that models are uploaded to; `hub.endpoint` is its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            path = unquote(urlsplit(self.path).path)
            status, answer = hub.answer(self.command, path, token, body)
            content = json.dumps(answer).encode()
            self.send_response(status)
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            if status >= 400:
                self.send_header("X-Error-Message", str(answer.get("error", "")))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PUT = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Be quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run_against(endpoint: str, script: str, values: object, folder: Path) -> list[str]:
    """Return the lines that a Python script prints which gets `values` as JSON, asks this Hub, and
    has its cache below `folder`.
    """
    environment = os.environ | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }

    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(values)],
        env=environment, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    return done.stdout.splitlines()
