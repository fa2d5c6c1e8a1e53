"""The ids of several texts, one after another, with a preallocated key/value cache.

When the context is full, its older half is forgotten, so a continuation may be longer than the
context.
"""

from collections.abc import Callable, Sequence

import torch

from lightlm.data.tokenization.tokenizer import Tokenizer
from lightlm.generation.drafting import GreedyDrafter
from lightlm.generation.mixing import mix_logits
from lightlm.generation.sampling import SamplingConfig, choose_tokens
from lightlm.model.attention import KVCache
from lightlm.model.packed import CACHE_DTYPE, PackedStepper
from lightlm.model.tensors import BV, B
from lightlm.model.transformer import Transformer
from lightlm.ngram.mixture import Mixture


class Decoder:
    """Several texts, extended by one id each at a time, and the model's cache of them."""

    def __init__(
        self,
        model: Transformer,
        prompts: Sequence[Sequence[int]],
        sampling: SamplingConfig,
        tokenizer: Tokenizer,
        open_stepper: Callable[[], PackedStepper] | None = None,
        open_drafter: Callable[[], GreedyDrafter] | None = None,
        mixture: Mixture | None = None,
    ) -> None:
        self.model = model
        self.mixture = mixture
        self.contexts = [] if mixture is None else [mixture.read(prompt) for prompt in prompts]
        self._open_drafter = open_drafter
        self._ready: list[int] = []  # checked ids that were not asked for yet
        self._num_chosen = 0
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

    # A decorator, not a `with` around the loop: between two pieces the reader of a stream would be
    # inside it.
    @torch.inference_mode()
    def choose_next(self) -> list[int]:
        """Return the next id of each text, and append it."""
        if not self._ready and self._open_drafter is not None and not self._is_unread():
            self._ready = self._draft(self._open_drafter())
        ids = [self._ready.pop(0)] if self._ready else self._choose()
        self._num_chosen += 1
        for window, index in zip(self.windows, ids, strict=True):
            window.append(index)
        if self.mixture is not None:
            self.contexts = [
                self.mixture.model.advance(context, index)
                for context, index in zip(self.contexts, ids, strict=True)
            ]
        return ids

    def _choose(self) -> list[int]:
        logits = self._read_windows() if self._is_unread() else self._read_last()
        if logits.shape[-1] > self.num_ids:  # rows of a padded vocabulary stand for no text
            logits = logits[:, : self.num_ids]
        if self.mixture is not None:
            logits = mix_logits(self.mixture, logits, self.contexts)
        chosen = choose_tokens(logits, self.sampling, self._sample_uniform(), self.seen)
        if self.seen is not None:
            self.seen.scatter_(1, chosen.unsqueeze(1), True)
        return chosen.tolist()

    def _draft(self, drafter: GreedyDrafter) -> list[int]:
        """Return the next ids of the one text, bounded by the context and by those wanted."""
        room = min(
            self.sampling.max_new_tokens - self._num_chosen, self.context_length - self.cache.length
        )
        context = self.contexts[0] if self.contexts else ()
        return drafter.extend(self.windows[0][-1], self.cache, room, context)

    def _is_unread(self) -> bool:
        return self.cache.length == 0 or self.cache.length >= self.context_length

    def _read_last(self) -> BV:
        last = torch.tensor([window[-1] for window in self.windows], device=self.device)
        if self._stepper is None and self._open_stepper is not None:
            self._stepper = self._open_stepper()
        if self._stepper is not None:
            return self._stepper.step(last, self.cache)
        return self.model(last[:, None], cache=self.cache)[:, -1]

    def _read_windows(self) -> BV:
        """Read each window again, padded on the left; one beyond the context keeps half."""
        for window in self.windows:
            if len(window) > self.context_length:
                del window[: -(self.context_length // 2)]

        longest = max(map(len, self.windows))
        padding = [longest - len(window) for window in self.windows]
        rows = [
            [self.padding_id] * pad + window
            for pad, window in zip(padding, self.windows, strict=True)
        ]

        self.cache.length = 0
        self.cache.padding = torch.tensor(padding, device=self.device) if any(padding) else None
        hidden, _ = self.model.hidden_states(torch.tensor(rows, device=self.device), self.cache)
        return self.model.logits(hidden[:, -1]).float()

    def _sample_uniform(self) -> B:
        """Return a random number in [0, 1) per text; with a seed the same for all."""
        if self.sampling.seed is None:
            return torch.rand(len(self.windows), generator=self.random)
        return torch.rand(1, generator=self.random).expand(len(self.windows))

    def _mark_seen(self) -> BV:
        seen = torch.zeros(len(self.windows), self.num_ids, dtype=torch.bool, device=self.device)
        for row, window in zip(seen, self.windows, strict=True):
            row[window] = True
        return seen
