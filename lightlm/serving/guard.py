"""What stands before the application: allowed host names, the key, and bounded bodies.

Each is answered before the application sees the request. The key is compared in constant time and
is never logged.
"""

import hashlib
import hmac
from collections.abc import Collection

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lightlm.serving.errors import ApiError

MOST_BODY_BYTES = 4 << 20
"""Bytes of a request's body."""

OPEN_PATHS = ("/health",)
"""Paths that answer without the key; they say nothing about models and texts."""


class Guard:
    """Lets requests through that name an allowed host, hold the key, and are short enough."""

    def __init__(self, application: ASGIApp, key: str, hosts: Collection[str]) -> None:
        self.application = application
        self.hosts = {host.lower() for host in hosts}
        self._digest = hash_key(key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it in OpenAI's shape."""
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return

        error = self._check(scope)
        if error is not None:
            await error.respond()(scope, receive, send)
            return
        bounded = bound_body(receive, MOST_BODY_BYTES, str(self._refuse_length()))
        await self.application(scope, bounded, send)

    def _check(self, scope: Scope) -> ApiError | None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if host not in self.hosts:
            return ApiError(
                403,
                f"this server does not answer to the host {host!r}; name it with --allowed-hosts",
                code="invalid_host",
            )

        if scope["path"] not in OPEN_PATHS and not self._has_key(headers):
            return ApiError(
                401,
                "wanted the server's key as `Authorization: Bearer KEY`; "
                "`lightlm serve` prints it, or says where it is",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MOST_BODY_BYTES:
            return self._refuse_length()
        return None

    def _has_key(self, headers: dict[bytes, bytes]) -> bool:
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        digest = hash_key(given.strip())
        return hmac.compare_digest(digest, self._digest) and scheme.lower() == b"bearer"

    def _refuse_length(self) -> ApiError:
        return ApiError(
            413, f"the request's body is longer than {MOST_BODY_BYTES:,} bytes", code="too_large"
        )


def bound_body(receive: Receive, most_bytes: int, refusal: str) -> Receive:
    """Return what receives a body whose length is not stated, and ends it with `refusal` where it
    grows too long.
    """
    num_bytes = 0

    async def receive_bounded() -> Message:
        nonlocal num_bytes
        message = await receive()
        num_bytes += len(message.get("body", b""))
        if num_bytes > most_bytes:
            # Of all exceptions, FastAPI's reading of a body lets only this one through.
            raise HTTPException(413, refusal)
        return message

    return receive_bounded


def hash_key(key: bytes) -> bytes:
    """Return the SHA-256 of a key: digests have one length, so comparing them tells nothing."""
    return hashlib.sha256(key).digest()
