"""Errors of the server in OpenAI's shape: a message, a type, the parameter, a code."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from starlette.responses import JSONResponse

from lightlm.json_object import JsonObject

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"
RETRY_SECONDS = 1
"""Seconds after which a refused request may find room; clients read them in Retry-After."""


class ApiError(Exception):
    """An answer that is no text, with its HTTP status."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID_REQUEST,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = headers

    def describe(self) -> JsonObject:
        """Return the JSON object that OpenAI's clients read."""
        values: dict[str, Any] = {
            "message": str(self),
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        return {"error": values}

    def respond(self) -> JSONResponse:
        """Return the error as an HTTP response."""
        return JSONResponse(self.describe(), self.status, headers=dict(self.headers))


def refuse_full(message: str) -> ApiError:
    """Return the error of a full line."""
    return ApiError(
        429,
        message,
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        headers={"Retry-After": str(RETRY_SECONDS)},
    )


def refuse_value(param: str, wanted: str) -> ApiError:
    """Return the error of a parameter whose value the server does not take."""
    return ApiError(400, wanted, param=param)


def refuse_trouble() -> ApiError:
    """Return the error of a server that cannot use its registry; clients learn no address of it."""
    return ApiError(
        503,
        "the server cannot read its registered models now; its log says why",
        kind=SERVER_ERROR,
        headers={"Retry-After": str(RETRY_SECONDS)},
    )
