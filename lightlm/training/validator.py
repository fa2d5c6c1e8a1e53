"""Validation while a model trains: score, best weights so far, and samples of its text."""

import math
import time
from typing import NamedTuple

from torch import Tensor

from lightlm.data.shards import TokenShards
from lightlm.data.tokenization.tokenizer import load_tokenizer
from lightlm.evaluation.scoring import score_tokens
from lightlm.generation.sampling import SamplingConfig
from lightlm.generation.text import Generator
from lightlm.model.adapters import copy_merged, has_adapters
from lightlm.model.transformer import Transformer
from lightlm.params import load_params
from lightlm.training.messages import TrainRequest
from lightlm.training.optimizer import list_trained
from lightlm.training.trainer import SPIKE_FACTOR, Diverged
from lightlm.training.validation import choose_validation_sample, validate

OVERFIT_MARGIN = 1.002
"""Factor on the best validation score beyond which the best weights replace the final ones."""


class Validation(NamedTuple):
    """One validation: bits per byte, and the seconds that it took."""

    bits_per_byte: float
    seconds: float


class Validator:
    """Scores a model on held-out text, and remembers the best score and, if asked, its weights."""

    def __init__(
        self,
        request: TrainRequest,
        model: Transformer,
        shards: TokenShards,
        best_bits: float | None,
        best_weights: dict[str, Tensor] | None,
    ) -> None:
        self.request = request
        self.model = model
        self.tokenizer = load_tokenizer(request.tokenizer_folder)
        self.sample = choose_validation_sample(shards, self.tokenizer, request.validation_tokens)
        self.best_bits = math.inf if best_bits is None else best_bits
        self.best_weights = best_weights

    def validate(self) -> Validation:
        """Return the score of the sample; the best one is remembered."""
        started = time.monotonic()
        bits = validate(self.model, self.sample)
        seconds = time.monotonic() - started

        if bits < self.best_bits:
            self.best_bits = bits
            if self.request.keep_best:
                self.best_weights = {
                    name: weight.detach().clone()
                    for name, weight in list_trained(self.model).items()
                }

        return Validation(bits, seconds)

    def restore_best(self, final_bits: float) -> bool:
        """Put the best weights back if the final ones validate worse; return whether it was so."""
        if self.best_weights is None or final_bits <= self.best_bits * OVERFIT_MARGIN:
            return False
        for name, weight in list_trained(self.model).items():
            weight.data.copy_(self.best_weights[name])
        return True

    def check_weights(self, step: int) -> None:
        """Refuse weights that are finite but useless: a rollback would lead to them.

        Raises:
            Diverged: the loss on held-out text is far above chance.
        """
        piece = self.sample.pieces[0][: self.request.model.context_length + 1]
        nats = float(score_tokens(self.model, piece).mean())
        if not nats <= SPIKE_FACTOR * math.log(self.request.model.vocab_size):
            lost = f"after step {step} the loss on held-out text is {nats:.3g} nats per token"
            raise Diverged(f"{lost}; give a smaller training.learning_rate_scale")

    def write_sample(self) -> str:
        """Return a continuation of the sample prompt, sampled as params.generation asks."""
        trainer = self.request.trainer
        values = load_params().generation.model_dump() | self.request.generation
        length = {"max_new_tokens": self.request.sample_tokens, "seed": trainer.seed}
        sampling = SamplingConfig.model_validate(values | length)

        model = copy_merged(self.model) if has_adapters(self.model) else self.model
        generator = Generator(model, self.tokenizer)
        text = generator.generate([trainer.sample_prompt], sampling)[0].text
        self.model.train()
        return text
