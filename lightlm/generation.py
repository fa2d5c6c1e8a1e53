"""Text from a model: prompts in, continuations out, with a preallocated key/value cache.

Owns sampling and streaming. What a prompt gets does not depend on the others computed with it. When the context is
full, its older half is forgotten, so a continuation may be longer than the context.
"""

import codecs
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, ValidationError
from torch import Tensor

from lightlm.data.tokenizer import Tokenizer, load_tokenizer
from lightlm.errors import PromptError
from lightlm.model.attention import KVCache
from lightlm.model.hugging_face import load_model
from lightlm.model.packed import (
    CACHE_DTYPE,
    ONE_THREAD_PARAMETERS,
    PackedStepper,
    can_halve,
    can_step,
    halve_model,
    store_in_compute_dtype,
)
from lightlm.model.transformer import Transformer
from lightlm.params import GenerationParams, describe_validation

FinishReason = Literal["length", "stop", "end_of_text"]

MAX_ROWS = 32
"""Prompts computed together; more of them are taken in turns, so that the caches fit in memory."""

MIN_TEMPERATURE = 1e-5
"""Below it sampling is greedy: fp32 could not divide by it and keep a second token apart."""


class SamplingConfig(GenerationParams):
    """How the next token is chosen, and where to stop. Temperature 0 is greedy; top_k 0 and top_p 1 are off."""

    stop: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...], Field(max_length=16)] = ()


class Generation(NamedTuple):
    """A continuation, without its prompt. `seconds`: of all prompts that were computed with it."""

    text: str
    num_new_tokens: int
    finish_reason: FinishReason
    seconds: float


def is_greedy(sampling: SamplingConfig) -> bool:
    """Return whether the likeliest token is always chosen."""
    return sampling.temperature < MIN_TEMPERATURE


def check_sampling(values: Mapping[str, Any]) -> SamplingConfig:
    """Return the sampling config of `values`.

    Raises:
        PromptError: names every value that is wrong, what was wanted and what was got.
    """
    try:
        return SamplingConfig.model_validate(dict(values))
    except ValidationError as error:
        raise PromptError(describe_validation(error)) from None


LEAST_PACKED_TOKENS, LEAST_HALF_TOKENS = 8, 64
"""Packing the weights takes as long as about three tokens, packing them in fp16 as some fifty."""


def load_generator(folder: Path, device: str = "cpu") -> "Generator":
    """Return a generator of the model and tokenizer in a Hugging Face folder; small models get one thread of torch.

    Their products are too short to be shared: two threads gave 31 tokens/s on two busy cores, one gave 550
    (3M parameters, November 2026).
    """
    model = load_model(folder, device=device)
    if device == "cpu" and sum(weight.numel() for weight in model.parameters()) < ONE_THREAD_PARAMETERS:
        torch.set_num_threads(1)
    return Generator(model, load_tokenizer(folder))


class Generator:
    """Continues texts with one model, in the model's compute dtype, with the weights that it has at the first text."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer) -> None:
        self.model = store_in_compute_dtype(model)
        self.tokenizer = tokenizer
        self._steppers: dict[tuple[int, bool], PackedStepper] = {}
        self._halved: Transformer | None = None

    def stream(self, prompt: str, sampling: SamplingConfig) -> Iterator[str]:
        """Return the continuation piece by piece, each of whole characters, as it is written.

        The same seed gives the same text, here and in `generate`.

        Raises:
            PromptError: the prompt is empty, or longer than the context; at the call, not at the first piece.
        """
        return self._stream(self._encode(prompt), sampling)

    def generate(self, prompts: Sequence[str], sampling: SamplingConfig) -> list[Generation]:
        """Return the continuations of prompts, computed together; with a seed, each as it would be alone.

        Raises:
            PromptError: a prompt is empty, or longer than the context.
        """
        encoded = [self._encode(prompt) for prompt in prompts]
        written = []
        for first in range(0, len(encoded), MAX_ROWS):
            written += self._generate(encoded[first : first + MAX_ROWS], sampling)
        return written

    def _stream(self, prompt: list[int], sampling: SamplingConfig) -> Iterator[str]:
        writer = TextWriter(self.tokenizer, sampling)
        for chosen in self.choose_ids([prompt], sampling):
            if piece := writer.add(chosen[0]):
                yield piece
            if writer.finish_reason is not None:
                return

    def _generate(self, prompts: list[list[int]], sampling: SamplingConfig) -> list[Generation]:
        started = time.perf_counter()
        writers = [TextWriter(self.tokenizer, sampling) for _ in prompts]
        pieces: list[list[str]] = [[] for _ in prompts]
        for chosen in self.choose_ids(prompts, sampling):
            for writer, row, index in zip(writers, pieces, chosen, strict=True):
                if writer.finish_reason is None:
                    row.append(writer.add(index))
            if all(writer.finish_reason for writer in writers):
                break
        seconds = time.perf_counter() - started
        return [
            Generation("".join(row), writer.num_tokens, writer.finish_reason or "length", seconds)
            for writer, row in zip(writers, pieces, strict=True)
        ]

    def _encode(self, prompt: str) -> list[int]:
        # No end-of-text before it: transformers would add none either, and windows of training start anywhere.
        ids = self.tokenizer.encode(prompt)
        if not ids:
            raise PromptError("the prompt is empty; give at least one character to continue")
        room = self.model.config.context_length
        if len(ids) > room:
            raise PromptError(
                f"the prompt has {len(ids):,} tokens, the model reads at most {room:,}; give a shorter prompt"
            )
        return ids

    def choose_ids(self, prompts: Sequence[Sequence[int]], sampling: SamplingConfig) -> Iterator[list[int]]:
        """Yield the next id of every prompt, `max_new_tokens` times; the model's mode is left as it was."""
        was_training = self.model.training
        self.model.eval()
        try:
            model = self._find_model(sampling)
            is_packed = sampling.max_new_tokens >= LEAST_PACKED_TOKENS and can_step(model)
            open_stepper = functools.partial(self._find_stepper, model, len(prompts)) if is_packed else None
            decoder = Decoder(model, prompts, sampling, self.tokenizer, open_stepper)
            for _ in range(sampling.max_new_tokens):
                yield decoder.choose_next()
        finally:
            self.model.train(was_training)

    def _find_model(self, sampling: SamplingConfig) -> Transformer:
        """Return the model, or a copy with weights rounded to fp16, which packed steps of small models read faster.

        Greedy text in fp32 stays so, as transformers would write it. For all batch sizes: they must not change a text.
        """
        is_exact = is_greedy(sampling) and self.model.compute_dtype == torch.float32
        if is_exact or sampling.max_new_tokens < LEAST_HALF_TOKENS or not can_step(self.model):
            return self.model
        if self._halved is None:
            self._halved = halve_model(self.model) if can_halve(self.model) else self.model
        return self._halved

    def _find_stepper(self, model: Transformer, batch_size: int) -> PackedStepper:
        """Return packed weights; the newest only is kept: each holds the weights once more."""
        in_half = model is not self.model
        if (key := (0 if in_half else batch_size, in_half)) not in self._steppers:
            self._steppers = {key: PackedStepper(model, batch_size, in_half=in_half)}
        return self._steppers[key]


class Decoder:
    """Several texts, extended by one id each at a time, and the cache of what the model has read of them."""

    def __init__(
        self,
        model: Transformer,
        prompts: Sequence[Sequence[int]],
        sampling: SamplingConfig,
        tokenizer: Tokenizer,
        open_stepper: Callable[[], PackedStepper] | None = None,
    ) -> None:
        self.model = model
        self._stepper: PackedStepper | None = None
        self._open_stepper = open_stepper  # only after the first token, which does not wait for it
        self.sampling = sampling
        self.context_length = model.config.context_length
        self.device = model.embedding.device
        self.num_ids = tokenizer.vocab_size
        self.padding_id = tokenizer.end_of_text_id
        self.windows = [list(prompt) for prompt in prompts]
        self.cache = KVCache.allocate(
            model.config,
            len(prompts),
            min(self.context_length, max(map(len, prompts)) + sampling.max_new_tokens),
            dtype=model.compute_dtype if open_stepper is None else CACHE_DTYPE,
            device=self.device,
        )
        self.random = torch.Generator()
        if sampling.seed is None:
            self.random.seed()
        else:
            self.random.manual_seed(sampling.seed)
        self.seen = self._mark_seen() if sampling.repetition_penalty != 1 else None

    # A decorator, not a `with` around the loop: between two pieces the reader of a stream would be inside it.
    @torch.inference_mode()
    def choose_next(self) -> list[int]:
        """Return the next id of each text, and append it."""
        logits = self._read_windows() if self._is_unread() else self._read_last()
        if logits.shape[-1] > self.num_ids:  # rows of a padded vocabulary stand for no text
            logits = logits[:, : self.num_ids]
        chosen = choose_tokens(logits, self.sampling, self._draw(), self.seen)
        if self.seen is not None:
            self.seen.scatter_(1, chosen.unsqueeze(1), True)
        ids = chosen.tolist()
        for window, index in zip(self.windows, ids, strict=True):
            window.append(index)
        return ids

    def _is_unread(self) -> bool:
        return self.cache.length == 0 or self.cache.length >= self.context_length

    def _read_last(self) -> Tensor:
        last = torch.tensor([window[-1] for window in self.windows], device=self.device)
        if self._stepper is None and self._open_stepper is not None:
            self._stepper = self._open_stepper()
        if self._stepper is not None:
            return self._stepper.step(last, self.cache)
        return self.model(last[:, None], cache=self.cache)[:, -1]

    def _read_windows(self) -> Tensor:
        """Read each window anew, shorter ones padded on the left; those beyond the context keep half of it."""
        for window in self.windows:
            if len(window) > self.context_length:
                del window[: -(self.context_length // 2)]
        longest = max(map(len, self.windows))
        padding = [longest - len(window) for window in self.windows]
        rows = [[self.padding_id] * pad + window for pad, window in zip(padding, self.windows, strict=True)]
        self.cache.length = 0
        self.cache.padding = torch.tensor(padding, device=self.device) if any(padding) else None
        hidden, _ = self.model.encode(torch.tensor(rows, device=self.device), self.cache)
        return self.model.read_out(hidden[:, -1]).float()

    def _draw(self) -> Tensor:
        """Return a number in [0, 1) for each text: with a seed the same for all, which each would draw alone."""
        if self.sampling.seed is None:
            return torch.rand(len(self.windows), generator=self.random)
        return torch.rand(1, generator=self.random).expand(len(self.windows))

    def _mark_seen(self) -> Tensor:
        seen = torch.zeros(len(self.windows), self.num_ids, dtype=torch.bool, device=self.device)
        for row, window in zip(seen, self.windows, strict=True):
            row[window] = True
        return seen


class TextWriter:
    """Turns the new ids of one text into characters, up to a stop text or the end."""

    def __init__(self, tokenizer: Tokenizer, sampling: SamplingConfig) -> None:
        self.tokenizer = tokenizer
        self.sampling = sampling
        self.num_tokens = 0
        self.finish_reason: FinishReason | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""
        # Text that could still become a stop text is held back.
        self._held_back = max(map(len, sampling.stop), default=1) - 1

    def add(self, index: int) -> str:
        """Return the characters that are certain after a further id; a character cut by the end is left out."""
        self.num_tokens += 1
        if index == self.tokenizer.end_of_text_id:
            self.finish_reason = "end_of_text"
            return self._pending
        self._pending += self._decoder.decode(self.tokenizer.decode_bytes([index]))
        found = [at for stop in self.sampling.stop if (at := self._pending.find(stop)) >= 0]
        if found:
            self.finish_reason = "stop"
            return self._pending[: min(found)]
        if self.num_tokens >= self.sampling.max_new_tokens:
            self.finish_reason = "length"
            return self._pending
        certain = max(0, len(self._pending) - self._held_back)
        given, self._pending = self._pending[:certain], self._pending[certain:]
        return given


def choose_tokens(logits: Tensor, sampling: SamplingConfig, drawn: Tensor, seen: Tensor | None = None) -> Tensor:
    """Return the next id (B,) of each row of logits (B, V), by the numbers `drawn` (B,) in [0, 1).

    In transformers' order: repetition penalty of the ids `seen` (B, V), temperature, top_k, top_p.
    Source: penalty as CTRL, arXiv 1909.05858, section 4.1, with transformers' care for negative logits.
    """
    if seen is not None:
        penalty = sampling.repetition_penalty
        logits = torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)
    if is_greedy(sampling):
        return logits.argmax(-1)
    # The largest becomes 0 first, so that no temperature makes it infinite.
    logits = (logits - logits.amax(-1, keepdim=True)) / sampling.temperature
    if sampling.top_k or sampling.top_p < 1:
        logits = logits.masked_fill(logits < _find_least(logits, sampling), float("-inf"))
    return _pick(logits.softmax(-1), drawn)


def _find_least(logits: Tensor, sampling: SamplingConfig) -> Tensor:
    """Return for each row of logits (B, V) the least one (B, 1) that top_k and then top_p leave."""
    likeliest = logits.topk(min(sampling.top_k or logits.shape[-1], logits.shape[-1]), dim=-1).values
    probabilities = likeliest.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities  # of likelier ones; 0 for the first, which always stays
    kept = (before < sampling.top_p).sum(-1, keepdim=True).clamp(min=1)
    return likeliest.gather(-1, kept - 1)


def _pick(weights: Tensor, drawn: Tensor) -> Tensor:
    """Return for each row of weights (B, V) the place where its share `drawn` of the sum falls.

    In the order of ids, not of likelihood: two that are about as likely may change places by rounding alone.
    """
    sums = weights.cumsum(-1)
    # The factor keeps a share that rounds to the whole sum off the places of weight 0 after it.
    wanted = drawn.to(sums.device).unsqueeze(-1) * sums[:, -1:] * (1 - 1e-6)
    return torch.searchsorted(sums, wanted, right=True).squeeze(-1).clamp(max=weights.shape[-1] - 1)
