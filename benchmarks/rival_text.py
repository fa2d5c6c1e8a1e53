"""What the rivals share: the same text, the same tokenizer, the same clock, the same score as
LightLM's.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from tokenizers import Tokenizer

REGISTER_SECONDS = 1.0
"""Kept for saving the model and ending the process; LightLM registers, which takes longer."""


class Contest:
    """One rival's run: its texts as ids, its clock, its score."""

    def __init__(self, description: str | None) -> None:
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument(
            "--text", type=Path, required=True, help="folder with train.txt, validation.txt"
        )
        parser.add_argument("--tokenizer", type=Path, required=True)
        parser.add_argument("--seconds", type=float, required=True, help="of the whole command")
        parser.add_argument("--threads", type=int, default=2)
        given = parser.parse_args()
        self.started = time.monotonic() - (time.time() - psutil.Process().create_time())
        self.seconds = given.seconds
        torch.set_num_threads(given.threads)
        tokenizer = Tokenizer.from_file(str(given.tokenizer))
        self.vocab_size = tokenizer.get_vocab_size()
        self.validation_bytes = (given.text / "validation.txt").read_bytes()
        self.train = self._encode(tokenizer, (given.text / "train.txt").read_text(encoding="utf-8"))
        self.validation = self._encode(tokenizer, self.validation_bytes.decode("utf-8"))
        self.scoring_seconds = 5.0
        self.training_began = self.elapsed()

    @staticmethod
    def _encode(tokenizer: Tokenizer, text: str) -> np.ndarray:
        pieces = text.splitlines(keepends=True)
        return np.concatenate(
            [np.asarray(e.ids, np.int64) for e in tokenizer.encode_batch_fast(pieces)]
        )

    def elapsed(self) -> float:
        """Return the seconds since the process began."""
        return time.monotonic() - self.started

    def progress(self) -> float:
        """Return the fraction of the time for training that is spent, in [0, 1]."""
        total = self.seconds - REGISTER_SECONDS - self.scoring_seconds - self.training_began
        return min(1.0, (self.elapsed() - self.training_began) / max(total, 1e-9))

    def time_scoring(
        self, nats_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], context: int
    ) -> None:
        """Measure what scoring will take, once the model can compute."""
        started = time.monotonic()
        count = self._score(nats_of, context, limit=16 * context)[1]
        self.scoring_seconds = (
            1.1 * (time.monotonic() - started) * len(self.validation) / max(1, count)
        )
        self.training_began = self.elapsed()

    def finish(
        self,
        nats_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        context: int,
        tokens: int,
    ) -> None:
        """Score the whole held-out text and print the result as JSON.

        `nats_of(inputs, targets)` returns the summed nats of (B, T) windows; every token is scored
        once, the first is charged the logarithm of the vocabulary.
        """
        nats, _ = self._score(nats_of, context, limit=None)
        bits = (nats + math.log(self.vocab_size)) / math.log(2) / len(self.validation_bytes)
        print(
            json.dumps(
                {
                    "bits_per_byte": bits,
                    "tokens": tokens,
                    "seconds": self.elapsed(),
                    "vocab_size": self.vocab_size,
                }
            )
        )

    def _score(
        self,
        nats_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        context: int,
        limit: int | None,
    ) -> tuple[float, int]:
        ids = torch.from_numpy(self.validation if limit is None else self.validation[: limit + 1])
        nats = 0.0
        position = 0

        with torch.no_grad():
            while position < len(ids) - 1:
                windows = max(1, min(16, (len(ids) - 1 - position) // context))
                size = min(context, len(ids) - 1 - position)
                piece = ids[position : position + windows * size + 1]
                inputs = piece[:-1].view(windows, size)
                targets = piece[1:].view(windows, size)
                nats += float(nats_of(inputs, targets))
                position += windows * size

        return nats, len(ids) - 1

    def batch(
        self, generator: torch.Generator, size: int, context: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return random windows (B, T) of the training text and their targets."""
        starts = torch.randint(len(self.train) - context - 1, (size,), generator=generator).tolist()
        rows = torch.from_numpy(np.stack([self.train[s : s + context + 1] for s in starts]))
        return rows[:, :-1], rows[:, 1:]
