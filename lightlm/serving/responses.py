"""Answers in OpenAI's shape: completions, chat completions, and the chunks of their streams."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lightlm.json_object import JsonObject
from lightlm.serving.choices import Piece, ScoredToken


class Shape(Protocol):
    """What an answer's format decides."""

    whole: str
    chunk: str
    prefix: str

    def show(self, text: str, tokens: Sequence[ScoredToken], *, is_scored: bool) -> JsonObject:
        """Return a whole choice's text and log probabilities."""
        ...

    def show_part(self, text: str, tokens: Sequence[ScoredToken], *, is_scored: bool) -> JsonObject:
        """Return the same of a chunk."""
        ...

    def open_choice(self, index: int) -> JsonObject | None:
        """Return the first chunk of a choice, before any text; None where there is none."""
        ...


class CompletionShape:
    """/v1/completions."""

    whole = "text_completion"
    chunk = "text_completion"
    prefix = "cmpl"

    def show(self, text: str, tokens: Sequence[ScoredToken], *, is_scored: bool) -> JsonObject:
        """Return a choice's text and log probabilities, four lists of one entry per token."""
        return {"text": text, "logprobs": _list_scores(tokens) if is_scored else None}

    show_part = show

    def open_choice(self, index: int) -> JsonObject | None:
        """Return None: a completion begins with its text."""
        return None


class ChatShape:
    """/v1/chat/completions."""

    whole = "chat.completion"
    chunk = "chat.completion.chunk"
    prefix = "chatcmpl"

    def show(self, text: str, tokens: Sequence[ScoredToken], *, is_scored: bool) -> JsonObject:
        """Return a choice's message and log probabilities, one object per token."""
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"message": message, "logprobs": _describe_scores(tokens) if is_scored else None}

    def show_part(self, text: str, tokens: Sequence[ScoredToken], *, is_scored: bool) -> JsonObject:
        """Return what a chunk adds to the message."""
        delta = {"content": text} if text or tokens else {}
        return {"delta": delta, "logprobs": _describe_scores(tokens) if is_scored else None}

    def open_choice(self, index: int) -> JsonObject | None:
        """Return the chunk that says who speaks."""
        delta = {"role": "assistant", "content": ""}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}


@dataclass(frozen=True)
class Answer:
    """What all parts of an answer share: its id, time, and version."""

    shape: Shape
    model: str
    fingerprint: str
    is_scored: bool
    includes_usage: bool = False
    created: int = field(default_factory=lambda: int(time.time()))
    id: str = ""

    @classmethod
    def begin(
        cls,
        shape: Shape,
        model: str,
        fingerprint: str,
        *,
        is_scored: bool,
        includes_usage: bool = False,
    ) -> "Answer":
        """Return an answer with an id of its own."""
        name = f"{shape.prefix}-{secrets.token_hex(12)}"
        return cls(shape, model, fingerprint, is_scored, includes_usage, id=name)

    def finish(self, pieces: Sequence[Sequence[Piece]], usage: JsonObject) -> JsonObject:
        """Return the whole answer; `pieces` are those of each choice."""
        choices = []
        for index, own in enumerate(pieces):
            text = "".join(piece.text for piece in own)
            tokens = [token for piece in own for token in piece.tokens]
            shown = self.shape.show(text, tokens, is_scored=self.is_scored)
            choices.append({"index": index, **shown, "finish_reason": own[-1].finish_reason})
        return self._wrap(self.shape.whole, choices) | {"usage": usage}

    def introduce(self, index: int) -> JsonObject | None:
        """Return the first chunk of a choice; None where its text comes first."""
        choice = self.shape.open_choice(index)
        return None if choice is None else self._wrap_chunk([choice])

    def show(self, piece: Piece) -> JsonObject | None:
        """Return a chunk; None where the piece holds nothing yet."""
        if not (piece.text or piece.tokens or piece.finish_reason):
            return None
        shown = self.shape.show_part(piece.text, piece.tokens, is_scored=self.is_scored)
        choice = {"index": piece.choice, **shown, "finish_reason": piece.finish_reason}
        return self._wrap_chunk([choice])

    def show_usage(self, usage: JsonObject) -> JsonObject:
        """Return the last chunk of a stream that includes the usage."""
        return self._wrap(self.shape.chunk, []) | {"usage": usage}

    def _wrap_chunk(self, choices: list[JsonObject]) -> JsonObject:
        usage: JsonObject = {"usage": None} if self.includes_usage else {}
        return self._wrap(self.shape.chunk, choices) | usage

    def _wrap(self, kind: str, choices: list[JsonObject]) -> JsonObject:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        }


def describe_usage(num_prompt_tokens: int, num_new_tokens: int) -> JsonObject:
    """Return the usage of a request."""
    return {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": num_new_tokens,
        "total_tokens": num_prompt_tokens + num_new_tokens,
    }


def show_bytes(content: bytes) -> str:
    r"""Return a token as a string; one that ends inside of a character as "bytes:\\xe2\\x80"."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


def _list_scores(tokens: Sequence[ScoredToken]) -> JsonObject:
    has_alternatives = any(token.alternatives for token in tokens)
    return {
        "tokens": [show_bytes(token.content) for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [_list_alternatives(token) for token in tokens]
        if has_alternatives
        else None,
        "text_offset": [token.offset for token in tokens],
    }


def _list_alternatives(token: ScoredToken) -> dict[str, float] | None:
    if token.logprob is None:
        return None
    found = {show_bytes(content): value for content, value in token.alternatives}
    found.setdefault(show_bytes(token.content), token.logprob)  # the chosen one is always there
    return found


def _describe_scores(tokens: Sequence[ScoredToken]) -> JsonObject:
    content: list[Any] = [
        _describe_token(token.content, token.logprob or 0.0)
        | {"top_logprobs": [_describe_token(*one) for one in token.alternatives]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _describe_token(content: bytes, logprob: float) -> JsonObject:
    return {"token": show_bytes(content), "logprob": logprob, "bytes": list(content)}
