"""Requests in OpenAI's shape: what a client may ask for, checked.

A value that is left out is the one that `lightlm generate` uses. A parameter that would change the
text and is not supported is an error; one that would not is ignored.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lightlm.errors import PromptError
from lightlm.generation.sampling import SamplingConfig, check_sampling
from lightlm.params import load_params
from lightlm.serving.errors import ApiError, refuse_value

MOST_TEXTS = 128
"""Texts of one request: its prompts times n."""

MOST_ALTERNATIVES = 20
"""Alternatives of a token's log probability."""

DEFAULT_MAX_TOKENS = 16
"""Tokens of a completion that names no number, as with OpenAI's."""

_PLACE = re.compile(r"(?!(?:str|int|list)$)[a-z_]+|\d+")

Stop = Annotated[str, Field(min_length=1, max_length=1000)]
Ids = list[Annotated[int, Field(ge=0)]]


class StreamOptions(BaseModel):
    """What a stream adds."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False
    include_obfuscation: bool = False
    """Ignored: it hides the length of tokens from who watches encrypted traffic."""


def drop_nulls(values: Any) -> Any:
    """Return an object without what is null: clients send so what they leave out."""
    if not isinstance(values, dict):
        return values
    return {name: value for name, value in values.items() if value is not None}


class TextRequest(BaseModel):
    """What both kinds of requests have."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    model: Annotated[str, Field(max_length=300)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_TEXTS)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None

    # What would change the text and is not there: refused unless it asks for nothing.
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None

    # What would not change the text.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    _drop_nulls = model_validator(mode="before")(drop_nulls)

    @property
    def num_choices(self) -> int:
        """Texts per prompt."""
        return self.n or 1

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def check_supported(self) -> None:
        """Refuse what would change the text and is not supported.

        Raises:
            ApiError: names the parameter.
        """
        for name in ("presence_penalty", "frequency_penalty", "logit_bias"):
            if getattr(self, name):
                raise refuse_value(
                    name, f"{name} is not supported; leave it out, or use repetition_penalty"
                )
        if self.stream_options is not None and not self.stream:
            raise refuse_value("stream_options", "stream_options wants stream: true")

    def choose_sampling(self, max_tokens: int) -> SamplingConfig:
        """Return how the first choice of a prompt is sampled.

        Raises:
            ApiError: a value is out of bounds.
        """
        names = ("temperature", "top_p", "top_k", "repetition_penalty", "seed")
        given = {name: value for name in names if (value := getattr(self, name)) is not None} | {
            "max_new_tokens": max_tokens
        }
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        try:
            return check_sampling(dict(read_defaults()) | given | {"stop": stop})
        except PromptError as error:
            message = str(error).replace("max_new_tokens", "max_tokens")
            raise ApiError(400, message, param=message.partition(" ")[0]) from None


class CompletionRequest(TextRequest):
    """A request of /v1/completions."""

    prompt: str | Ids | list[str] | list[Ids] | None = None
    max_tokens: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None
    best_of: int | None = None
    suffix: str | None = None

    @property
    def num_new_tokens(self) -> int:
        """Tokens to write at most."""
        return DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens

    def list_prompts(self) -> Sequence[str | list[int]]:
        """Return the prompts, as texts or as ids.

        Raises:
            ApiError: there is none, or there are too many.
        """
        prompt = self.prompt
        if not prompt:
            raise refuse_value("prompt", "prompt is empty; give at least one character or id")
        if isinstance(prompt, str):
            return [prompt]
        if isinstance(prompt[0], int):
            return [prompt]  # pyright: ignore[reportReturnType]
        return prompt  # pyright: ignore[reportReturnType]

    def check_supported(self) -> None:
        """Refuse what would change the text and is not supported."""
        super().check_supported()
        if self.best_of is not None and self.best_of != self.num_choices:
            raise refuse_value("best_of", "best_of is not supported; leave it out, or use n")
        if self.suffix:
            raise refuse_value("suffix", "suffix is not supported; the models continue a text")
        if self.max_tokens == 0 and not self.echo:
            raise refuse_value("max_tokens", "max_tokens 0 wants echo: true; give 1 or more")


class ContentPart(BaseModel):
    """A part of a message; only text is read."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A message of a conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart]
    name: str | None = None

    # What an answer of this server may hold: clients send it back with the next question.
    refusal: str | None = None
    annotations: list[Any] | None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None

    _drop_nulls = model_validator(mode="before")(drop_nulls)

    def read_text(self) -> str:
        """Return the message's text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class ChatRequest(TextRequest):
    """A request of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None

    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None
    reasoning_effort: str | None = None
    parallel_tool_calls: bool | None = None

    @property
    def num_alternatives(self) -> int | None:
        """Alternatives of each token; None: no log probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def check_supported(self) -> None:
        """Refuse what would change the text and is not supported."""
        super().check_supported()
        for name in ("tools", "functions"):
            if getattr(self, name):
                raise refuse_value(name, f"{name} is not supported; the models call none")
        if self.response_format and self.response_format.get("type") != "text":
            raise refuse_value("response_format", "response_format has to be text")
        if self.modalities and self.modalities != ["text"]:
            raise refuse_value("modalities", "modalities has to be text alone")
        if self.top_logprobs is not None and not self.logprobs:
            raise refuse_value("top_logprobs", "top_logprobs wants logprobs: true")


@functools.cache
def read_defaults() -> Mapping[str, Any]:
    """Return the params' sampling values; reading them anew would take longer than a token."""
    return load_params().generation.model_dump()


def describe_errors(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """Return what a request's validation found first, in OpenAI's words."""
    first = choose_error(errors)
    places = [str(place) for place in first["loc"] if place != "body"]
    # What Pydantic adds for the alternatives of a union is no name of a parameter.
    name = ".".join(place for place in places if _PLACE.fullmatch(place))
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"Unrecognized request argument supplied: {name}", param=name)
    if first["type"] == "json_invalid" or not places:
        return ApiError(
            400,
            f"the body is no JSON object of a request: {first['msg']}; send one, with the header "
            "Content-Type: application/json",
        )
    return ApiError(400, f"{name}: {first['msg']}", param=name)


def choose_error(errors: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the first error; of a value with alternatives, that of the one it comes closest to."""
    own = [error for error in errors if error["loc"][:2] == errors[0]["loc"][:2]]
    return next((error for error in own if not error["type"].endswith("_type")), errors[0])
