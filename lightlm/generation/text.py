"""Text from a model: prompts in, continuations out, at once or as a stream.

A prompt's continuation does not depend on the other prompts of its batch.
"""

import codecs
import functools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from lightlm.data.tokenization.tokenizer import Tokenizer, load_tokenizer
from lightlm.errors import PromptError
from lightlm.generation.decoder import Decoder
from lightlm.generation.drafting import GreedyDrafter
from lightlm.generation.sampling import SamplingConfig, is_greedy
from lightlm.model.hugging_face import load_model
from lightlm.model.packed import (
    ONE_THREAD_PARAMETERS,
    PackedStepper,
    can_draft,
    can_halve,
    can_step,
    halve_model,
    store_in_compute_dtype,
)
from lightlm.model.packed_products import MANY_ROWS
from lightlm.model.transformer import Transformer
from lightlm.ngram.mixture import Mixture
from lightlm.ngram.version import load_mixture

FinishReason = Literal["length", "stop", "end_of_text"]

MAX_ROWS = 32
"""Prompts computed together; more of them are taken in turns, so that the caches fit in memory."""


class Generation(NamedTuple):
    """A continuation, without its prompt. `seconds`: of all prompts that were computed with it."""

    text: str
    num_new_tokens: int
    finish_reason: FinishReason
    seconds: float


LEAST_PACKED_TOKENS = 8
LEAST_HALF_TOKENS = 64
"""Packing the weights takes as long as about three tokens, packing them in fp16 as some fifty."""


def load_generator(folder: Path) -> "Generator":
    """Return a generator of the model and tokenizer in a Hugging Face folder; small models get one
    thread of torch (see `load_parts`).
    """
    return Generator(*load_parts(folder, "cpu"))


def load_parts(folder: Path, device: str) -> tuple[Transformer, Tokenizer, Mixture | None]:
    """Return the model, the tokenizer and the count tables, if any, of a Hugging Face folder; small
    models get one thread of torch.

    Their products are too short to be shared: two threads gave 31 tokens/s on two busy cores, one
    gave 550 (3M parameters, November 2026).
    """
    model = load_model(folder, device=device)
    if (
        device == "cpu"
        and sum(weight.numel() for weight in model.parameters()) < ONE_THREAD_PARAMETERS
    ):
        torch.set_num_threads(1)
    return model, load_tokenizer(folder), load_mixture(folder)


class Generator:
    """Continues texts with one model, in its compute dtype and with its weights at that time; with
    a `mixture`, by network and counts together.
    """

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer, mixture: Mixture | None = None
    ) -> None:
        self.model = store_in_compute_dtype(model)
        self.tokenizer = tokenizer
        self.mixture = mixture
        self._steppers: dict[tuple[int, bool], PackedStepper] = {}
        self._halved: Transformer | None = None
        self._drafter: GreedyDrafter | None = None

    def stream(self, prompt: str, sampling: SamplingConfig) -> Iterator[str]:
        """Return the continuation piece by piece, each of whole characters, as it is written.

        The same seed gives the same text, here and in `generate`.

        Raises:
            PromptError: the prompt is empty, or longer than the context; at the call, not at the
                first piece.
        """
        return self._stream(self._encode(prompt), sampling)

    def generate(self, prompts: Sequence[str], sampling: SamplingConfig) -> list[Generation]:
        """Return the continuations of prompts, computed together; with a seed, each as it would be
        alone.

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
        # No end-of-text before it: transformers would add none either, and windows of training
        # start anywhere.
        if not isinstance(prompt, str):
            raise PromptError(f"a prompt is {type(prompt).__name__}; give str")
        ids = self.tokenizer.encode(prompt)
        if not ids:
            raise PromptError("the prompt is empty; give at least one character to continue")
        room = self.model.config.context_length
        if len(ids) > room:
            raise PromptError(
                f"the prompt has {len(ids):,} tokens, the model reads at most {room:,}; give a "
                "shorter prompt"
            )
        return ids

    def choose_ids(
        self, prompts: Sequence[Sequence[int]], sampling: SamplingConfig
    ) -> Iterator[list[int]]:
        """Yield the next id of every prompt, `max_new_tokens` times; keep the model's mode."""
        was_training = self.model.training
        self.model.eval()
        try:
            model = self._find_model(sampling)
            is_packed = sampling.max_new_tokens >= LEAST_PACKED_TOKENS and can_step(model)
            open_stepper = (
                functools.partial(self._find_stepper, model, len(prompts)) if is_packed else None
            )
            is_drafted = len(prompts) == 1 and self._can_draft(sampling)
            open_drafter = self._find_drafter if is_drafted else None
            decoder = Decoder(
                model, prompts, sampling, self.tokenizer, open_stepper, open_drafter, self.mixture
            )
            for _ in range(sampling.max_new_tokens):
                yield decoder.choose_next()
        finally:
            self.model.train(was_training)

    def _find_model(self, sampling: SamplingConfig) -> Transformer:
        """Return the model, or a copy with weights rounded to fp16, which packed steps of small
        models read faster.

        Greedy text in fp32 stays so, as transformers would write it. For all batch sizes: they must
        not change a text.
        """
        is_exact = is_greedy(sampling) and self.model.compute_dtype == torch.float32
        if is_exact or sampling.max_new_tokens < LEAST_HALF_TOKENS or not can_step(self.model):
            return self.model
        if self._halved is None:
            self._halved = halve_model(self.model) if can_halve(self.model) else self.model
        return self._halved

    def _can_draft(self, sampling: SamplingConfig) -> bool:
        """Return whether the text is greedy, without penalty, and worth packing for."""
        is_plain = is_greedy(sampling) and sampling.repetition_penalty == 1
        is_long = sampling.max_new_tokens >= LEAST_HALF_TOKENS
        return is_plain and is_long and can_step(self.model) and can_draft(self.model)

    def _find_drafter(self) -> GreedyDrafter:
        if self._drafter is None:
            steppers = (
                PackedStepper(self.model, 1, in_half=True),
                PackedStepper(self.model, MANY_ROWS),
            )
            self._drafter = GreedyDrafter(*steppers, self.tokenizer.vocab_size, self.mixture)
        return self._drafter

    def _find_stepper(self, model: Transformer, batch_size: int) -> PackedStepper:
        """Return packed weights; the newest only is kept: each holds the weights once more."""
        in_half = model is not self.model
        if (key := (0 if in_half else batch_size, in_half)) not in self._steppers:
            self._steppers = {key: PackedStepper(model, batch_size, in_half=in_half)}
        return self._steppers[key]


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
        """Return the characters that are certain after a further id; a character cut by the end is
        left out.
        """
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
        given = self._pending[:certain]
        self._pending = self._pending[certain:]
        return given
