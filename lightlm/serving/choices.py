"""The choices of a request: texts in an engine, their pieces as they come, their log probabilities.

A token's log probability is given once its text is certain, so that no token of a stop text shows.
"""

import asyncio
import codecs
import functools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from lightlm.errors import LightLMError
from lightlm.generation.engine import Delivery, EngineClosedError, QueueFullError
from lightlm.serving.errors import RETRY_SECONDS, SERVER_ERROR, ApiError, refuse_full

if TYPE_CHECKING:
    from lightlm.data.tokenization.tokenizer import Tokenizer
    from lightlm.generation.running_batch import BatchedText, Score, Token
    from lightlm.serving.metrics import Metrics
    from lightlm.serving.versions import LoadedVersion


MOST_UNREAD = 1000
"""Pieces of a choice that wait for its client, some twenty seconds of a stream."""


class SlowClientError(LightLMError):
    """The client reads more slowly than its texts are written."""


class ScoredToken(NamedTuple):
    """A token's bytes and log probability, where it begins in the text, and its alternatives."""

    content: bytes
    logprob: float | None
    offset: int
    """Characters of the choice's text before the token."""

    alternatives: tuple[tuple[bytes, float], ...]


class Piece(NamedTuple):
    """What a choice gets by one or more tokens."""

    choice: int
    text: str
    tokens: tuple[ScoredToken, ...]
    finish_reason: str | None


@dataclass
class Choice:
    """One text of a request."""

    index: int
    text: "BatchedText"
    tokenizer: "Tokenizer"
    echo: str = ""
    """The prompt, where the choice repeats it."""

    num_tokens: int = 0
    written: list[str] = field(default_factory=list)
    """The pieces of its text so far, and below why it ended."""
    finish_reason: str | None = None
    _is_begun: bool = False
    _num_sent: int = 0
    _offset: int = 0
    _pending: list[ScoredToken] = field(default_factory=list)
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )

    def add(self, tokens: "Sequence[Token]") -> Piece:
        """Return what new tokens add to the choice."""
        pieces = [self._add(token) for token in tokens]
        self.written += [piece.text for piece in pieces]
        self.finish_reason = pieces[-1].finish_reason
        return Piece(
            self.index,
            "".join(piece.text for piece in pieces),
            tuple(scored for piece in pieces for scored in piece.tokens),
            pieces[-1].finish_reason,
        )

    def _add(self, token: "Token") -> Piece:
        piece = token.piece
        if not self._is_begun:
            self._is_begun = True
            piece = self.echo + piece
            for score in token.prompt:
                self._pending.append(self._describe(score))
            if self.echo:
                self._offset = len(self.echo)  # a character that is cut off counts whole
                self._decoder.reset()

        if token.token_id is not None:
            self.num_tokens += 1
        if token.score is not None:
            self._pending.append(self._describe(token.score))

        self._num_sent += len(piece)
        reason = token.finish_reason
        certain = len(self._pending)
        if reason in (None, "stop"):
            certain = sum(one.offset < self._num_sent for one in self._pending)
        tokens = tuple(self._pending[:certain])
        del self._pending[:certain]

        return Piece(self.index, piece, tokens, "stop" if reason == "end_of_text" else reason)

    def _describe(self, score: "Score") -> ScoredToken:
        content = self._read_bytes(score.token_id)
        offset = self._offset
        if score.token_id != self.tokenizer.end_of_text_id:
            self._offset += len(self._decoder.decode(content))
        alternatives = tuple(
            (self._read_bytes(index), value) for index, value in score.alternatives
        )
        return ScoredToken(content, score.logprob, offset, alternatives)

    def _read_bytes(self, index: int) -> bytes:
        if index == self.tokenizer.end_of_text_id:
            return (self.tokenizer.engine.id_to_token(index) or "").encode()
        return self.tokenizer.decode_bytes([index])


class RequestTexts:
    """The choices of one request while the engine writes them."""

    def __init__(self, loaded: "LoadedVersion", choices: Sequence[Choice]) -> None:
        self.loaded = loaded
        self.choices = choices
        self.when_finished: Callable[[RequestTexts], None] = lambda texts: None
        """What is called once the request has ended, however it ended."""
        self._waiting = {choice.index for choice in choices}
        self._is_finished = False
        self.is_overrun = False
        """Whether its client did not read for so long that its texts were ended."""
        self._started = time.perf_counter()
        self._first_seconds: float | None = None
        self._pieces: asyncio.Queue[Piece | Exception] = asyncio.Queue()

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompts, each counted once however many choices continue it."""
        prompts = {id(choice.text.prompt): len(choice.text.prompt) for choice in self.choices}
        return sum(prompts.values())

    @property
    def num_new_tokens(self) -> int:
        """Tokens that were written so far, an end of text among them."""
        return sum(choice.num_tokens for choice in self.choices)

    @property
    def seconds(self) -> float:
        """Seconds since the request came."""
        return time.perf_counter() - self._started

    def submit(self) -> None:
        """Hand the texts to the engine.

        Raises:
            ApiError: the engine has no room, or is being replaced.
        """
        for choice in self.choices:
            choice.text.receive = functools.partial(self._receive, choice)
        try:
            self.loaded.engine.submit([choice.text for choice in self.choices])
        except QueueFullError as error:
            raise refuse_full(str(error)) from None
        except EngineClosedError as error:
            headers = {"Retry-After": str(RETRY_SECONDS)}
            raise ApiError(503, str(error), kind=SERVER_ERROR, headers=headers) from None

    def _receive(self, choice: Choice, tokens: "Sequence[Token] | Exception") -> None:
        """Put what tokens add where the request reads it; end the texts of a client that does not
        read, as one that sleeps: they would fill the memory.
        """
        if self.is_overrun:
            return
        self.is_overrun = self._pieces.qsize() >= MOST_UNREAD * len(self.choices)
        if self.is_overrun:
            self.loaded.engine.cancel([one.text for one in self.choices])
            tokens = SlowClientError("the text was not read for too long, and is not written on")
        is_error = isinstance(tokens, Exception)
        self._pieces.put_nowait(tokens if is_error else choice.add(tokens))

    async def read(self) -> AsyncIterator[Piece]:
        """Yield the pieces of all choices as they are written.

        Raises:
            ApiError: a step of the engine failed.
        """
        while self._waiting:
            piece = await self._pieces.get()
            if isinstance(piece, Exception):
                raise ApiError(500, _explain(piece), kind=SERVER_ERROR)
            if self._first_seconds is None:
                self._first_seconds = time.perf_counter() - self._started
            if piece.finish_reason is not None:
                self._waiting.discard(piece.choice)
            yield piece

    def finish(self, metrics: "Metrics") -> None:
        """Cancel what is still written, and count the request."""
        if self._is_finished:
            return
        self._is_finished = True
        left = [choice.text for choice in self.choices if choice.index in self._waiting]
        if left:
            self.loaded.engine.cancel(left)

        name = self.loaded.name
        metrics.cancelled_texts.inc(len(left))
        metrics.prompt_tokens.labels(name).inc(self.num_prompt_tokens)
        metrics.generated_tokens.labels(name).inc(self.num_new_tokens)
        metrics.request_seconds.observe(self.seconds)
        if self._first_seconds is not None:
            metrics.first_token_seconds.observe(self._first_seconds)
        self.when_finished(self)


class Postman:
    """Carries tokens from the engines' threads to the server's, one call per delivery."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def __call__(self, delivery: Delivery) -> None:
        """Deliver tokens."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._hand_out, delivery)

    def _hand_out(self, delivery: Delivery) -> None:
        for text, tokens in delivery.items():
            text.receive(tokens)


def _explain(error: Exception) -> str:
    if isinstance(error, LightLMError):
        return str(error)
    return f"the model could not write this text ({type(error).__name__}); see the server's log"
