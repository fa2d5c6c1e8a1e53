"""Clients of Prefect's API whose requests end within the seconds of this process's patience.

httpx bounds each read of an answer, but not the whole answer: one that drips or never ends is cut
off here. Prefect's client sleeps as long as an answer's Retry-After demands, even if it does not
try again: such an answer is an error here.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
from prefect.client.base import PrefectHttpxAsyncClient, PrefectHttpxSyncClient

from lightlm.budget.allowance import PATIENCE, Patience

MOST_ANSWER_BYTES = 64 * 2**20
"""Bytes of an answer; a longer one has no end."""

TRY_LATER = (408, 429, 502, 503)
"""Status codes after which Prefect's client sleeps before it returns them."""

ENDS_AT = "lightlm_ends_at"


class Limit:
    """The end of one answer: by the clock, and by its bytes."""

    def __init__(self, ends_at: float, clock: Callable[[], float]) -> None:
        self._ends_at = ends_at
        self._clock = clock
        self._num_bytes = 0

    def take(self, chunk: bytes) -> bytes:
        """Return `chunk`, if it came in time.

        Raises:
            httpx.ReadTimeout: the answer takes too long, or has no end.
        """
        self._num_bytes += len(chunk)
        if self._clock() > self._ends_at or self._num_bytes > MOST_ANSWER_BYTES:
            raise httpx.ReadTimeout("the answer did not end in time")
        return chunk


class BoundStream(httpx.SyncByteStream):
    """The bytes of an answer, until its limit."""

    def __init__(self, stream: Any, limit: Limit) -> None:
        self._stream = stream
        self._limit = limit

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            yield self._limit.take(chunk)

    def close(self) -> None:
        """Close the connection's side of it."""
        self._stream.close()


class BoundAsyncStream(httpx.AsyncByteStream):
    """The bytes of an answer to an asynchronous client, until its limit."""

    def __init__(self, stream: Any, limit: Limit) -> None:
        self._stream = stream
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the bytes as they come."""
        async for chunk in self._stream:
            yield self._limit.take(chunk)

    async def aclose(self) -> None:
        """Close the connection's side of it."""
        await self._stream.aclose()


class BoundSyncClient(PrefectHttpxSyncClient):
    """Prefect's client, each request of it bounded."""

    def __init__(self, *args: Any, patience: Patience = PATIENCE, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience = patience
        self.event_hooks = self.event_hooks | {
            "response": [*self.event_hooks["response"], self._bound]
        }

    def send(self, request: httpx.Request, *args: Any, **kwargs: Any) -> httpx.Response:
        """Send a request and read its answer, within what the patience gives it."""
        give_seconds(request, self._patience)
        try:
            with self._patience.waiting():
                answer = super().send(request, *args, **kwargs)
        except httpx.TimeoutException:
            self._patience.note(is_answered=False)
            raise
        self._patience.note(is_answered=True)
        return answer

    def _bound(self, answer: httpx.Response) -> None:
        refuse_delay(answer)
        answer.stream = BoundStream(
            answer.stream, Limit(answer.request.extensions[ENDS_AT], self._patience.clock)
        )


class BoundAsyncClient(PrefectHttpxAsyncClient):
    """A client of Prefect's asynchronous kind, with the same limits."""

    def __init__(self, *args: Any, patience: Patience = PATIENCE, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience = patience
        self.event_hooks = self.event_hooks | {
            "response": [*self.event_hooks["response"], self._bound]
        }

    async def send(self, request: httpx.Request, *args: Any, **kwargs: Any) -> httpx.Response:
        """Send a request and read its answer, within what the patience gives it."""
        give_seconds(request, self._patience)
        try:
            with self._patience.waiting():
                answer = await super().send(request, *args, **kwargs)
        except httpx.TimeoutException:
            self._patience.note(is_answered=False)
            raise
        self._patience.note(is_answered=True)
        return answer

    async def _bound(self, answer: httpx.Response) -> None:
        refuse_delay(answer)
        answer.stream = BoundAsyncStream(
            answer.stream, Limit(answer.request.extensions[ENDS_AT], self._patience.clock)
        )


def give_seconds(request: httpx.Request, patience: Patience) -> None:
    """Put into a request when it has to be answered."""
    seconds = patience.request_seconds()
    request.extensions = dict(request.extensions) | {
        "timeout": httpx.Timeout(seconds).as_dict(),
        ENDS_AT: patience.clock() + seconds,
    }


def refuse_delay(answer: httpx.Response) -> None:
    """Raise the answer of a server that asks to be asked later: the run does not wait for it."""
    if answer.status_code in TRY_LATER:
        raise httpx.HTTPStatusError(
            f"Prefect's API answered {answer.status_code}", request=answer.request, response=answer
        )


def bound_requests() -> None:
    """Have Prefect make its clients of the bounded ones from now on."""
    from prefect.client import orchestration

    orchestration.PrefectHttpxSyncClient = BoundSyncClient  # pyright: ignore[reportPrivateImportUsage]
    orchestration.PrefectHttpxAsyncClient = BoundAsyncClient  # pyright: ignore[reportPrivateImportUsage]
