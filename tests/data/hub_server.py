"""A stand-in for the Hugging Face Hub: the requests that huggingface_hub makes for a data set, over
HTTP.
"""

import hashlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

COMMIT = "a" * 40


@contextmanager
def serve_hub(
    repositories: dict[str, dict[str, bytes]], delay_seconds: float = 0.0
) -> Iterator[tuple[str, list[str]]]:
    """Serve {repository: {file: content}}; yield the endpoint and the list of requests made."""
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def log_message(self, format: str, *args: object) -> None:
            requests.append(f"{self.command} {self.path}")

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
                else:
                    etag = f'"{hashlib.sha256(content).hexdigest()}"'
                    self._send(content if with_body else b"", {"ETag": etag}, len(content))
            else:
                self._refuse("RepoNotFound")

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
                content = json.dumps(body).encode()
                self._send(content, {"Content-Type": "application/json"}, len(content))

        def _send(self, body: bytes, headers: dict[str, str], length: int) -> None:
            self.send_response(200)
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
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
