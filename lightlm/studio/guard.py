"""What stands before the studio: host names, origins, cookie and token, and bounded bodies.

Each is answered before the application sees the request. Every answer says what a browser may do
with it: nothing from elsewhere runs in the page, and no other page shows it.
"""

from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lightlm.serving.guard import bound_body
from lightlm.studio.sessions import TOKEN_HEADER, Sessions

MOST_BODY_BYTES = 1 << 20
"""Bytes of a request's body; uploads have a bound of their own."""

MOST_UPLOAD_BYTES = 1 << 30
"""Bytes of an uploaded file."""

ASSETS = "/page/"
UPLOADS = "/api/uploads/"
DOCUMENTS = "/documents/"
OPEN_CALLS = ("/api/login",)
"""Calls that answer without a session."""

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
DOCUMENT_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""A report has its styles inside of itself; it runs no script and has no origin."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


class StudioGuard:
    """Lets requests through that name an allowed host, come from the page, and hold a session."""

    def __init__(self, application: ASGIApp, sessions: Sessions, hosts: Collection[str]) -> None:
        self.application = application
        self.sessions = sessions
        self.hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it as {"error": ...}."""
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return

        path = scope["path"]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                is_document = path.startswith(DOCUMENTS)
                headers["Content-Security-Policy"] = DOCUMENT_POLICY if is_document else PAGE_POLICY
                if is_document:  # the standard refuses a sandboxed page that has it
                    del headers["Cross-Origin-Opener-Policy"]
                is_asset = path.startswith(ASSETS)
                headers.setdefault("Cache-Control", "no-cache" if is_asset else "no-store")
            await send(message)

        refusal = self._check(scope)
        if refusal is not None:
            await refusal(scope, receive, send_with_headers)
            return
        bound = MOST_UPLOAD_BYTES if path.startswith(UPLOADS) else MOST_BODY_BYTES
        await self.application(
            scope, bound_body(receive, bound, too_long(bound)), send_with_headers
        )

    def _check(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        path = scope["path"]
        host = headers.get("host", "").lower()
        if host not in self.hosts:
            return refuse(
                403, f"the studio does not answer to the host {host!r}; name it by --allowed-hosts"
            )
        if not is_own_page(scope["method"], host, headers):
            return refuse(403, "the studio takes requests from its own page alone")

        bound = MOST_UPLOAD_BYTES if path.startswith(UPLOADS) else MOST_BODY_BYTES
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > bound:
            return refuse(413, too_long(bound))

        needs_cookie = path.startswith(("/api/", DOCUMENTS)) and path not in OPEN_CALLS
        if needs_cookie and not self.sessions.has_cookie(headers.get("cookie", "")):
            return refuse(401, "wanted the studio's key; log in")
        needs_token = needs_cookie and not path.startswith(DOCUMENTS)
        if needs_token and not self.sessions.has_token(headers.get(TOKEN_HEADER, "")):
            return refuse(401, "wanted the page's token; log in")
        return None


def is_own_page(method: str, host: str, headers: Headers) -> bool:
    """Return whether a request comes from the studio's own page, or from no page at all."""
    origin = headers.get("origin")
    if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
        return False
    if method in ("GET", "HEAD"):
        return True
    return origin is not None and headers.get("sec-fetch-site", "same-origin") == "same-origin"


def too_long(most_bytes: int) -> str:
    """Return why a request is refused that is longer than that."""
    return f"the request is longer than {most_bytes:,} bytes"


def refuse(status: int, message: str) -> JSONResponse:
    """Return an error as the page reads it."""
    return JSONResponse({"error": message}, status)
