"""Texts written side by side by one model: each joins and leaves the batch at any token.

A text does not depend on the others: its random numbers are its own, and what it reads of the batch
is its own row. Source: continuous batching, Yu et al. 2022 (Orca, OSDI), section 3.2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lightlm.data.tokenization.tokenizer import Tokenizer
from lightlm.generation.mixing import mix_logits
from lightlm.generation.row_cache import RowCache
from lightlm.generation.sampling import SamplingConfig, choose_tokens
from lightlm.generation.text import MAX_ROWS, FinishReason, TextWriter, load_parts
from lightlm.model.attention import KVCache
from lightlm.model.packed import (
    CACHE_DTYPE,
    PackedStepper,
    can_halve,
    can_step,
    halve_model,
    store_in_compute_dtype,
)
from lightlm.model.packed_products import is_product_right
from lightlm.model.tensors import BTV, BV
from lightlm.model.transformer import Transformer
from lightlm.ngram.mixture import Context, Mixture

MOST_READ_TOKENS = 4096
"""Tokens of prompts that are read at once, with padding; other texts wait meanwhile."""

Alternatives = tuple[tuple[int, float], ...]
"""Likely ids with their natural logarithms of probability, the likeliest first."""


class Score(NamedTuple):
    """The natural logarithm of an id's probability before temperature, and its alternatives."""

    token_id: int
    logprob: float | None
    """None for the first token of a prompt, which follows nothing."""

    alternatives: Alternatives


class Token(NamedTuple):
    """What a step adds to a text: an id (None if none was asked for), and certain characters."""

    token_id: int | None
    piece: str
    finish_reason: FinishReason | None
    score: Score | None = None
    prompt: tuple[Score, ...] = ()
    """Scores of the prompt's tokens, with the first id only, and only where they were asked
    for.
    """


@dataclass(eq=False)
class BatchedText:
    """A text to write: the ids of its prompt, how to sample, and which scores are wanted."""

    prompt: list[int]
    sampling: SamplingConfig
    num_alternatives: int | None = None
    """Alternatives of each score; None: no scores."""

    is_prompt_scored: bool = False
    is_continued: bool = True
    """False: only the prompt is read."""

    is_streamed: bool = True
    """Whether the caller wants tokens soon; else all of them with the last."""

    receive: Callable[[Sequence[Token] | Exception], None] = lambda tokens: None
    """What the caller does with tokens; the batch itself does not call it."""

    end_ids: frozenset[int] = frozenset()
    """Ids that end the text, next to the tokenizer's own end of text."""

    is_first: bool = True
    """Whether no token of it was gathered yet."""

    window: list[int] = field(default_factory=list)
    context: Context = ()
    """What the counting model has read; empty without a mixture."""

    writer: TextWriter | None = None
    random: torch.Generator | None = None
    seen: Tensor | None = None


class RunningBatch:
    """A model, with a `mixture` also its count tables, and the texts that it writes now."""

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        max_rows: int = MAX_ROWS,
        mixture: Mixture | None = None,
    ) -> None:
        self.mixture = mixture
        model = store_in_compute_dtype(model).eval()
        self.is_half = can_step(model) and can_halve(model)
        self.model = halve_model(model) if self.is_half else model
        self.tokenizer = tokenizer
        self.max_rows = max_rows
        self.texts: list[BatchedText] = []
        """The texts, in the order of the cache's rows."""

        self._stepper = open_stepper(self.model, max_rows, is_half=self.is_half)
        self._device = model.embedding.device
        self._dtype = CACHE_DTYPE if self._stepper is not None else model.compute_dtype
        self._cache = RowCache(model.config, max_rows, self._dtype, self._device)
        self._random = torch.Generator()
        self._random.seed()

    @property
    def context_length(self) -> int:
        """Tokens that the model reads at most."""
        return self.model.config.context_length

    @property
    def num_free_rows(self) -> int:
        """Texts that can join."""
        return self.max_rows - len(self.texts)

    @torch.inference_mode()
    def join(self, texts: Sequence[BatchedText]) -> list[tuple[BatchedText, Token]]:
        """Read the prompts of at most `num_free_rows` texts; return the first token of each."""
        for text in texts:
            self._prepare(text)
        return self._read(texts)

    @torch.inference_mode()
    def step(self) -> list[tuple[BatchedText, Token]]:
        """Return the next token of each text; one that ends has left the batch."""
        full = [text for text in self.texts if len(text.window) > self.context_length]
        for text in full:
            self.leave(text)
            del text.window[: -(self.context_length // 2)]
        written = self._extend() if self.texts else []

        return [*written, *self._read(full)]

    @torch.inference_mode()
    def leave(self, text: BatchedText) -> None:
        """Remove a text from the batch; one that is not in it is left alone."""
        if text not in self.texts:
            return
        row = self.texts.index(text)
        self._cache.remove(row)
        self.texts[row] = self.texts[-1]
        self.texts.pop()

    def clear(self) -> None:
        """Remove all texts, whatever state a failed step left behind."""
        self.texts.clear()
        config = self.model.config
        self._cache = RowCache(config, self.max_rows, self._dtype, self._device)

    def _prepare(self, text: BatchedText) -> None:
        text.window = list(text.prompt)
        if self.mixture is not None:
            text.context = self.mixture.read(text.window)
        text.writer = TextWriter(self.tokenizer, text.sampling)
        if text.sampling.seed is not None:
            text.random = torch.Generator()
            text.random.manual_seed(text.sampling.seed)
        if text.sampling.repetition_penalty != 1:
            text.seen = torch.zeros(self.tokenizer.vocab_size, dtype=torch.bool)
            text.seen[text.window] = True

    def _read(self, texts: Sequence[BatchedText]) -> list[tuple[BatchedText, Token]]:
        """Read the windows of texts, and let those join that go on after their next token."""
        written = []
        waiting = list(texts)
        while waiting:
            group = [waiting.pop(0)]
            longest = len(group[0].window)
            # A prompt with scores is read alone: its logits take T x V numbers.
            while waiting and not (group[-1].is_prompt_scored or waiting[0].is_prompt_scored):
                longest = max(longest, len(waiting[0].window))
                if longest * (len(group) + 1) > MOST_READ_TOKENS:
                    break
                group.append(waiting.pop(0))
            written += self._read_together(group)
        return written

    def _read_together(self, group: Sequence[BatchedText]) -> list[tuple[BatchedText, Token]]:
        longest = max(len(text.window) for text in group)
        padding = [longest - len(text.window) for text in group]
        pad = self.tokenizer.end_of_text_id
        rows = [
            [pad] * num_padding + text.window
            for num_padding, text in zip(padding, group, strict=True)
        ]

        cache = KVCache.allocate(
            self.model.config,
            len(group),
            longest,
            dtype=self._dtype,
            device=self._device,
            padding=torch.tensor(padding, device=self._device) if any(padding) else None,
        )
        tokens = torch.tensor(rows, device=self._device)
        hidden, _ = self.model.hidden_states(tokens, cache)
        scored = group[0].is_prompt_scored
        prompt = self._score_prompt(group[0], self.model.logits(hidden)) if scored else ()
        group[0].is_prompt_scored = False  # a window that is read again is no prompt

        logits = self.model.logits(hidden[:, -1]).float()
        written = self._choose(group, logits, prompt)
        self._cache.append(cache)
        self.texts += group
        self._let_go(written)
        return written

    def _extend(self) -> list[tuple[BatchedText, Token]]:
        last = torch.tensor([text.window[-1] for text in self.texts], device=self._device)
        view = self._cache.open_view()
        if self._stepper is not None:
            logits = self._stepper.step(last, view)
        else:
            logits = self.model(last[:, None], cache=view)[:, -1]

        self._cache.advance()
        written = self._choose(self.texts, logits)
        self._let_go(written)
        return written

    def _let_go(self, written: Sequence[tuple[BatchedText, Token]]) -> None:
        for text, token in written:
            if token.finish_reason is not None:
                self.leave(text)

    def _choose(
        self, texts: Sequence[BatchedText], logits: BV, prompt: tuple[Score, ...] = ()
    ) -> list[tuple[BatchedText, Token]]:
        """Return the next token of each text, appended to its window."""
        logits = logits[:, : self.tokenizer.vocab_size]  # a padded row stands for no text
        if self.mixture is not None:
            logits = mix_logits(self.mixture, logits, [text.context for text in texts])
        chosen = self._choose_ids(texts, logits)
        scores = self._score(texts, logits, chosen)

        written = []
        for text, index, score in zip(texts, chosen, scores, strict=True):
            if not text.is_continued:
                written.append((text, Token(None, "", "length", None, prompt)))
                continue
            written.append((text, self._append(text, index, score, prompt)))
        return written

    def _append(
        self, text: BatchedText, index: int, score: Score | None, prompt: tuple[Score, ...]
    ) -> Token:
        assert text.writer is not None
        text.window.append(index)
        if self.mixture is not None:
            text.context = self.mixture.model.advance(text.context, index)
        if text.seen is not None:
            text.seen[index] = True

        # The tokenizer's end of text ends the text whatever else does.
        is_end = index in text.end_ids
        piece = text.writer.add(self.tokenizer.end_of_text_id if is_end else index)
        return Token(index, piece, text.writer.finish_reason, score, prompt)

    def _choose_ids(self, texts: Sequence[BatchedText], logits: BV) -> list[int]:
        """Return the id that each text's own sampling chooses; equal samplings are one call."""
        groups: dict[tuple[float, ...], list[int]] = {}
        for row, text in enumerate(texts):
            groups.setdefault(_name_sampling(text.sampling), []).append(row)

        drawn = torch.rand(len(texts), generator=self._random)
        for row, text in enumerate(texts):
            if text.random is not None:
                drawn[row] = torch.rand(1, generator=text.random)

        chosen = [0] * len(texts)
        for rows in groups.values():
            first = texts[rows[0]]
            seen = [texts[row].seen for row in rows]
            found = choose_tokens(
                logits if len(rows) == len(texts) else logits[rows],
                first.sampling,
                drawn[rows],
                None if first.seen is None else torch.stack(seen).to(logits.device),  # pyright: ignore[reportArgumentType]
            )
            for row, index in zip(rows, found.tolist(), strict=True):
                chosen[row] = index
        return chosen

    def _score(
        self, texts: Sequence[BatchedText], logits: BV, chosen: Sequence[int]
    ) -> list[Score | None]:
        wanted = [row for row, text in enumerate(texts) if text.num_alternatives is not None]
        scores: list[Score | None] = [None] * len(texts)
        if not wanted:
            return scores

        log_probabilities = logits[wanted].log_softmax(-1)
        for row, values in zip(wanted, log_probabilities, strict=True):
            scores[row] = describe_score(values, chosen[row], texts[row].num_alternatives or 0)
        return scores

    def _score_prompt(self, text: BatchedText, logits: BTV) -> tuple[Score, ...]:
        """Return the scores of a prompt's tokens."""
        rows = logits[0, :-1, : self.tokenizer.vocab_size].float()
        if self.mixture is not None:
            contexts = self.mixture.read_all(text.window[:-1])
            rows = mix_logits(self.mixture, rows, contexts)
        values = rows.log_softmax(-1)
        count = text.num_alternatives or 0
        following = zip(text.window[1:], values, strict=True)
        return (
            Score(text.window[0], None, ()),
            *(describe_score(row, index, count) for index, row in following),
        )


def describe_score(log_probabilities: Tensor, index: int, num_alternatives: int) -> Score:
    """Return the score of an id from the logarithms (V,) of all probabilities."""
    alternatives: Alternatives = ()
    if num_alternatives:
        top = log_probabilities.topk(min(num_alternatives, len(log_probabilities)))
        alternatives = tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True))
    return Score(index, float(log_probabilities[index]), alternatives)


def open_batch(folder: Path, max_rows: int = MAX_ROWS, device: str = "cpu") -> RunningBatch:
    """Return the batch of the model and tokenizer in a Hugging Face folder.

    Small models get one thread of torch (see `load_parts`).

    Raises:
        ModelVersionError: the folder holds no such model.
        TokenizerError: it holds no such tokenizer.
    """
    model, tokenizer, mixture = load_parts(folder, device)
    return RunningBatch(model, tokenizer, max_rows, mixture)


def open_stepper(model: Transformer, max_rows: int, *, is_half: bool) -> PackedStepper | None:
    """Return packed weights that serve 1 to `max_rows` texts; None where the model itself does.

    At 17M parameters a token of 32 texts took 28 ms with fp16 weights, 31 with packed fp32 ones and
    41 by the model; of one text 2.6, 6.1 and 7.8 (one thread of a busy EPYC, November 2026).
    """
    if is_half:
        return PackedStepper(model, max_rows, in_half=True)
    rows = tuple({1, 3, max_rows})
    if can_step(model) and is_product_right(model.compute_dtype, max_rows, rows):
        return PackedStepper(model, max_rows)
    return None


def _name_sampling(sampling: SamplingConfig) -> tuple[float, ...]:
    """Return what two texts must share so that one call chooses for both."""
    return (
        sampling.temperature,
        sampling.top_k,
        sampling.top_p,
        sampling.repetition_penalty,
    )
