"""A running batch in a thread of its own: texts wait in a bounded line, join, and are delivered.

Tokens are delivered from the engine's thread by few calls: each call wakes another thread, which at
a millisecond per step would take longer than the step.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from lightlm.errors import LightLMError
from lightlm.generation.running_batch import BatchedText, RunningBatch, Token

LOGGER = logging.getLogger(__name__)

STREAM_SECONDS = 0.02
"""Seconds that tokens of a stream are gathered: fifty times a second looks like writing."""

Delivery = Mapping[BatchedText, Sequence[Token] | Exception]
"""New tokens of each text, or what made its step fail, which ends the text."""


class QueueFullError(LightLMError):
    """The line of waiting texts is full; a later try may find room."""


class EngineClosedError(LightLMError):
    """The engine takes no further texts; those that it has are finished."""


class Engine:
    """Writes texts side by side until it is closed."""

    def __init__(
        self,
        batch: RunningBatch,
        deliver: Callable[[Delivery], None],
        max_waiting: int,
    ) -> None:
        self.batch = batch
        self.max_waiting = max_waiting
        self._deliver = deliver
        self._waiting: deque[BatchedText] = deque()
        self._gathered: dict[BatchedText, list[Token]] = {}
        self._delivered_at = 0.0
        self._cancelled: set[BatchedText] = set()
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def num_running(self) -> int:
        """Texts that are written now."""
        return len(self.batch.texts)

    @property
    def num_waiting(self) -> int:
        """Texts that wait for a row."""
        return len(self._waiting)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def submit(self, texts: Sequence[BatchedText]) -> None:
        """Put texts into the line, all of them or none.

        Raises:
            QueueFullError: the line has no room for them.
            EngineClosedError: the engine is closed.
        """
        with self._changed:
            if self._is_closed:
                raise EngineClosedError("this version is being replaced; send the request again")
            room = self.max_waiting + self.batch.num_free_rows - len(self._waiting)
            if len(texts) > room:
                raise QueueFullError(
                    f"{len(self._waiting)} texts wait already, and {len(texts)} more are too many; "
                    "send the request again later"
                )
            self._waiting.extend(texts)
            self._changed.notify()

    def cancel(self, texts: Sequence[BatchedText]) -> None:
        """Stop writing texts; those that have ended are left alone."""
        with self._changed:
            wanted = set(texts)
            self._waiting = deque(text for text in self._waiting if text not in wanted)
            self._cancelled |= wanted
            self._changed.notify()

    def close(self) -> None:
        """Take no further texts; the thread ends when those that it has are finished."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _run(self) -> None:
        while (joining := self._take()) is not None:
            try:
                written = self.batch.step()
                if joining:
                    written = [*written, *self.batch.join(joining)]
                self._gather(written)
            except Exception as error:
                LOGGER.exception("a step of the engine failed")
                failed = {*joining, *self.batch.texts, *self._gathered}
                self.batch.clear()
                self._gathered = {}
                self._deliver(dict.fromkeys(failed, error))

    def _gather(self, written: Sequence[tuple[BatchedText, Token]]) -> None:
        """Deliver tokens once a text ends or begins to stream, or streams have waited enough."""
        is_due = False
        is_stream = False
        for text, token in written:
            is_first = text.is_first
            text.is_first = False
            self._gathered.setdefault(text, []).append(token)
            is_stream = is_stream or text.is_streamed
            is_due = is_due or token.finish_reason is not None or (is_first and text.is_streamed)

        now = time.perf_counter()
        if is_due or (is_stream and now - self._delivered_at >= STREAM_SECONDS):
            self._deliver(self._gathered)
            self._gathered = {}
            self._delivered_at = now

    def _take(self) -> list[BatchedText] | None:
        """Wait for work; return the texts that join now, or None at the end."""
        with self._changed:
            while not (self._waiting or self.batch.texts or self._is_closed):
                self._cancelled.clear()
                self._changed.wait()

            for text in [text for text in self.batch.texts if text in self._cancelled]:
                self.batch.leave(text)
            for text in self._cancelled:
                self._gathered.pop(text, None)
            self._cancelled.clear()

            if self._is_closed and not (self._waiting or self.batch.texts):
                return None
            number = min(self.batch.num_free_rows, len(self._waiting))
            return [self._waiting.popleft() for _ in range(number)]
