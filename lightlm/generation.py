"""Text from a model: prompts in, continuations out, with a preallocated key/value cache.

Owns sampling and streaming. The cache is filled in place; when it is full, the older half of the text is forgotten.
"""

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from lightlm.data.tokenizer import Tokenizer, load_tokenizer
from lightlm.errors import PromptError
from lightlm.model.attention import KVCache
from lightlm.model.hugging_face import load_model
from lightlm.model.transformer import Transformer
from lightlm.params import Seed, Temperature, describe_validation

FinishReason = Literal["length", "stop", "end_of_text"]


class SamplingConfig(BaseModel):
    """How the next token is chosen. Temperature 0 is greedy; top_k 0 and top_p 1 are off."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_new_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 128
    temperature: Temperature = 0.8
    top_k: Annotated[int, Field(ge=0, le=1_048_576)] = 50
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] = 1.0
    seed: Seed | None = None
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()


class Generation(NamedTuple):
    """A continuation, without its prompt."""

    text: str
    num_new_tokens: int
    finish_reason: FinishReason
    seconds: float


def check_sampling(values: Mapping[str, Any]) -> SamplingConfig:
    """Return the sampling config of `values`.

    Raises:
        PromptError: names every value that is wrong, what was wanted and what was got.
    """
    try:
        return SamplingConfig.model_validate(dict(values))
    except ValidationError as error:
        raise PromptError(describe_validation(error)) from None


def load_generator(folder: Path, device: str = "cpu") -> "Generator":
    """Return a generator of the model and tokenizer in a Hugging Face folder."""
    return Generator(load_model(folder, device=device), load_tokenizer(folder))


class Generator:
    """Continues texts with one model."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer

    def stream(self, prompt: str, sampling: SamplingConfig) -> Iterator[str]:
        """Yield the continuation piece by piece, each of whole characters, as it is written.

        Raises:
            PromptError: the prompt is empty, or longer than the context.
        """
        writer = _Writer(self.tokenizer, sampling)
        for ids in self._sample([self._encode(prompt)], sampling):
            piece = writer.take(ids[0])
            if piece:
                yield piece
            if writer.finish_reason is not None:
                break
        if rest := writer.flush():
            yield rest

    def generate(self, prompts: Sequence[str], sampling: SamplingConfig) -> list[Generation]:
        """Return the continuations of prompts, computed together.

        Raises:
            PromptError: a prompt is empty, or longer than the context.
        """
        started = time.perf_counter()
        writers = [_Writer(self.tokenizer, sampling) for _ in prompts]
        texts = [""] * len(prompts)
        for ids in self._sample([self._encode(prompt) for prompt in prompts], sampling):
            for index, writer in enumerate(writers):
                if writer.finish_reason is None:
                    texts[index] += writer.take(ids[index])
            if all(writer.finish_reason is not None for writer in writers):
                break
        seconds = time.perf_counter() - started
        return [
            Generation(text + writer.flush(), writer.num_tokens, writer.finish_reason or "length", seconds)
            for text, writer in zip(texts, writers, strict=True)
        ]

    def _encode(self, prompt: str) -> list[int]:
        if not prompt:
            raise PromptError("the prompt is empty; give at least one character to continue")
        ids = [self.tokenizer.end_of_text_id, *self.tokenizer.encode(prompt)]
        room = self.model.config.context_length
        if len(ids) > room:
            raise PromptError(
                f"the prompt has {len(ids) - 1:,} tokens, the model reads at most {room - 1:,}; give a shorter prompt"
            )
        return ids

    def _sample(self, prompts: list[list[int]], sampling: SamplingConfig) -> Iterator[list[int]]:
        """Yield the next id of every prompt, `max_new_tokens` times."""
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                yield from self._sample_ids(prompts, sampling)
        finally:
            self.model.train(was_training)

    def _sample_ids(self, prompts: list[list[int]], sampling: SamplingConfig) -> Iterator[list[int]]:
        device = self.model.embedding.device
        draw = torch.Generator(device="cpu")
        draw.manual_seed(secrets.randbits(63) if sampling.seed is None else sampling.seed)
        histories = [list(prompt) for prompt in prompts]
        cache, logits = self._read(histories, device)
        for _ in range(sampling.max_new_tokens):
            chosen = choose_tokens(logits, histories, sampling, draw)
            yield chosen
            for history, index in zip(histories, chosen, strict=True):
                history.append(index)
            if cache.length >= self.model.config.context_length:
                keep = self.model.config.context_length // 2
                cache, logits = self._read([history[-keep:] for history in histories], device)
            else:
                tokens = torch.tensor(chosen, device=device).unsqueeze(1)
                logits = self.model(tokens, cache=cache)[:, -1]

    def _read(self, histories: list[list[int]], device: torch.device) -> tuple[KVCache, Tensor]:
        """Return a cache that holds the histories, shorter ones padded on the left, and the last logits (B, V)."""
        longest = max(map(len, histories))
        padding = torch.tensor([longest - len(history) for history in histories], device=device)
        rows = [[self.tokenizer.end_of_text_id] * (longest - len(history)) + history for history in histories]
        cache = KVCache.allocate(
            self.model.config,
            len(histories),
            self.model.config.context_length,
            dtype=self.model.compute_dtype,
            device=device,
            padding=padding if bool(padding.any()) else None,
        )
        hidden, _ = self.model.encode(torch.tensor(rows, device=device), cache)
        return cache, self.model.read_out(hidden[:, -1]).float()


class _Writer:
    """Turns one prompt's new ids into text: whole characters only, up to a stop string or the end."""

    def __init__(self, tokenizer: Tokenizer, sampling: SamplingConfig) -> None:
        self.tokenizer = tokenizer
        self.sampling = sampling
        self.num_tokens = 0
        self.finish_reason: FinishReason | None = None
        self._bytes = b""
        self._text = ""
        # Text that could still become a stop string is held back.
        self._longest_stop = max(map(len, sampling.stop), default=1) - 1

    def take(self, index: int) -> str:
        """Return the text that the next id completes."""
        self.num_tokens += 1
        if index == self.tokenizer.end_of_text_id:
            self.finish_reason = "end_of_text"
            return self._give(0)
        self._bytes += self.tokenizer.decode_bytes([index])
        whole = count_whole_bytes(self._bytes)
        self._text += self._bytes[:whole].decode("utf-8", "replace")
        self._bytes = self._bytes[whole:]
        for stop in self.sampling.stop:
            position = self._text.find(stop)
            if position >= 0:
                self._text = self._text[:position]
                self._bytes = b""
                self.finish_reason = "stop"
                return self._give(0)
        if self.num_tokens >= self.sampling.max_new_tokens:
            self.finish_reason = "length"
        return self._give(self._longest_stop)

    def flush(self) -> str:
        """Return what is still held back."""
        self._text += self._bytes.decode("utf-8", "replace")
        self._bytes = b""
        return self._give(0)

    def _give(self, held_back: int) -> str:
        end = len(self._text) - held_back
        given, self._text = (self._text[:end], self._text[end:]) if end > 0 else ("", self._text)
        return given


def count_whole_bytes(content: bytes) -> int:
    """Return how many leading bytes do not end inside a UTF-8 character."""
    for back in range(1, min(4, len(content)) + 1):
        byte = content[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return len(content) - back if length > back else len(content)
    return len(content)


def choose_tokens(
    logits: Tensor, histories: Sequence[Sequence[int]], sampling: SamplingConfig, draw: torch.Generator
) -> list[int]:
    """Return the next id of each row of logits (B, V), drawn as `sampling` says."""
    if sampling.repetition_penalty != 1.0:
        logits = penalize_repeats(logits, histories, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return logits.argmax(-1).tolist()
    logits = logits.cpu() / sampling.temperature
    if sampling.top_k and sampling.top_k < logits.shape[-1]:
        likeliest, ids = logits.topk(sampling.top_k, dim=-1)  # sorted, likeliest first
    else:
        likeliest, ids = logits.sort(dim=-1, descending=True)
    probabilities = likeliest.softmax(-1)
    if sampling.top_p < 1:
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= sampling.top_p, 0.0)
    drawn = torch.multinomial(probabilities, 1, generator=draw)
    return ids.gather(-1, drawn).squeeze(-1).tolist()


def penalize_repeats(logits: Tensor, histories: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Return logits (B, V) with those of ids already in the text made less likely.

    Source: CTRL, arXiv 1909.05858, section 4.1, as transformers applies it to negative logits.
    """
    logits = logits.clone()
    for row, history in enumerate(histories):
        seen = torch.tensor(sorted(set(history)), device=logits.device)
        values = logits[row, seen]
        logits[row, seen] = torch.where(values < 0, values * penalty, values / penalty)
    return logits
