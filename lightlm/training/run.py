"""One training run in this process: model, data, checkpoints, validation and samples around the trainer.

Owns what happens between two steps and what a run leaves: checkpoints, and a committed Hugging Face folder.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from lightlm.data.loader import Batch, ThreadedDataLoader
from lightlm.data.shards import TokenShards, open_shards
from lightlm.data.tokenizer import Tokenizer, load_tokenizer
from lightlm.evaluation import score_tokens
from lightlm.generation import Generator, SamplingConfig
from lightlm.model.hugging_face import export_model
from lightlm.model.transformer import Transformer
from lightlm.store.commit import commit_folder, remove_folder
from lightlm.training.checkpoint import (
    TrainingState,
    drop_checkpoints,
    load_latest,
    save_checkpoint,
    start_from,
)
from lightlm.training.device import build_model
from lightlm.training.events import Checkpointed, Event, Sampled, StepDone, Validated
from lightlm.training.messages import TrainRequest, TrainResult
from lightlm.training.optimizer import Optimizer
from lightlm.training.pace import Pace, StepPace, TimePace
from lightlm.training.timing import used_memory
from lightlm.training.trainer import Progress, train

EVENT_SECONDS = 0.25
"""Between two step events; the loss of those between is averaged into the next."""

VALIDATION_STRETCHES = 8
"""Places of the held-out text that the validation sample is taken from."""

OVERFIT_MARGIN = 1.002
"""The final weights give way to the best ones where these validate better by more than this factor."""


class TrainingRun:
    """Builds all parts of a run, resumes it from its newest checkpoint, and runs it once."""

    def __init__(self, request: TrainRequest, should_stop: Callable[[], bool] = lambda: False) -> None:
        self.request = request
        self.trainer = request.trainer
        self.should_stop = should_stop
        self.shards: TokenShards = open_shards(request.shards_folder)
        self.tokenizer = load_tokenizer(request.tokenizer_folder)
        self.model = build_model(request.model, request.trainer)
        self.optimizer = Optimizer(self.model, request.trainer)
        self.checkpoints = request.run_folder / "checkpoints"
        resumed = load_latest(self.checkpoints, self.model, self.optimizer)
        if resumed is None and request.start_folder is not None:
            start_from(request.start_folder, self.model)
        self.state = resumed or TrainingState()
        # The smaller one: the checkpoint's was reduced for memory, or the request's was after a memory kill.
        micro = min(self.state.micro_batch_size or request.trainer.micro_batch_size, request.trainer.micro_batch_size)
        self.counters = Progress(self.state.step, self.state.total_tokens, micro)
        self.pace = self._choose_pace()
        self.sample = choose_validation_sample(self.shards, self.tokenizer, request.validation_tokens)
        self.best_bits = self.state.best_bits_per_byte or math.inf
        self.best_weights: dict[str, torch.Tensor] | None = None
        self.last_factor = 1.0
        self.loop_seconds = 0.0

    def _choose_pace(self) -> Pace:
        if self.trainer.max_steps is not None:
            return StepPace(self.trainer.max_steps)
        spent = self.state.spent_seconds
        remaining = self.request.deadline - time.monotonic()
        return TimePace(spent + remaining, time.monotonic, spent)

    def run(self, emit: Callable[[Event], None]) -> TrainResult:
        """Train to the end of the budget, tell `emit`, commit the model's folder, return what was reached."""
        started = time.monotonic()
        with self._open_loader() as loader:
            batches = self._move(loader)
            steps = train(
                self.model,
                self.optimizer,
                batches,
                self.trainer,
                self.pace,
                counters=self.counters,
                should_stop=self.should_stop,
            )
            self._follow(steps, emit)
        self.loop_seconds = time.monotonic() - started
        is_stopped = self.should_stop()
        if is_stopped:
            self._checkpoint(emit)
        used_best = False if is_stopped else self._take_best(emit)
        folder = self._export()
        tokens = self.counters.total_tokens - self.state.total_tokens
        return TrainResult(
            folder=folder,
            step=self.counters.step,
            total_tokens=self.counters.total_tokens,
            training_seconds=self.loop_seconds,
            final_learning_rate_factor=self.last_factor,
            tokens_per_second=tokens / max(self.loop_seconds, 1e-9),
            micro_batch_size=self.counters.micro_batch_size or self.trainer.micro_batch_size,
            memory_bytes=used_memory(self.trainer.device),
            is_stopped=is_stopped,
            used_best_checkpoint=used_best,
        )

    def _open_loader(self) -> ThreadedDataLoader:
        return ThreadedDataLoader(
            self.shards.tokens("train"),
            context_length=self.request.model.context_length,
            batch_size=max(1, self.trainer.batch_tokens // self.request.model.context_length),
            seed=self.trainer.seed,
            start_step=self.counters.step,
            pin_memory=self.trainer.device.startswith("cuda"),
        )

    def _move(self, loader: ThreadedDataLoader) -> Iterator[Batch]:
        device = self.trainer.device
        if device == "cpu":
            return iter(loader)
        return (
            Batch(
                batch.inputs.to(device, non_blocking=True),
                batch.targets.to(device, non_blocking=True),
            )
            for batch in loader
        )

    def _follow(self, steps: Iterator[Event], emit: Callable[[Event], None]) -> None:
        """Pass the trainer's events on, thinned, and validate and save at their fractions of the budget."""
        validations = Milestones(self.trainer.num_validations, self._progress())
        checkpoints = Milestones(self.trainer.num_checkpoints, self._progress())
        thinned = ThinnedSteps(EVENT_SECONDS)
        for event in steps:
            if not isinstance(event, StepDone):
                emit(event)
                continue
            self.last_factor = event.learning_rate_factor
            for due in thinned.take(event):
                emit(due)
            if validations.reached(event.progress):
                self._validate(emit)
            if checkpoints.reached(event.progress):
                self._checkpoint(emit)
        for due in thinned.flush():
            emit(due)

    def _progress(self) -> float:
        return self.pace.progress(self.counters.step)

    def _validate(self, emit: Callable[[Event], None]) -> float:
        started = time.monotonic()
        bits = validate(self.model, self.sample)
        step, progress = self.counters.step, self._progress()
        emit(Validated(step, progress, bits, time.monotonic() - started))
        if bits < self.best_bits:
            self.best_bits = bits
            if self.request.keep_best:
                self.best_weights = {name: weight.detach().clone() for name, weight in self.model.named_parameters()}
        if self.request.sample_tokens:
            emit(Sampled(step, progress, self.trainer.sample_prompt, self._write_sample()))
        return bits

    def _write_sample(self) -> str:
        sampling = SamplingConfig(
            max_new_tokens=self.request.sample_tokens,
            temperature=0.8,
            top_k=50,
            top_p=0.95,
            repetition_penalty=1.0,
            seed=self.trainer.seed,
        )
        generator = Generator(self.model, self.tokenizer)
        text = generator.generate([self.trainer.sample_prompt], sampling)[0].text
        self.model.train()
        return text

    def _checkpoint(self, emit: Callable[[Event], None]) -> None:
        started = time.monotonic()
        state = replace(
            self.state,
            step=self.counters.step,
            total_tokens=self.counters.total_tokens,
            spent_seconds=self.pace.spent_seconds if isinstance(self.pace, TimePace) else 0.0,
            micro_batch_size=self.counters.micro_batch_size,
            best_bits_per_byte=self.best_bits if math.isfinite(self.best_bits) else None,
        )
        folder = save_checkpoint(self.checkpoints, self.model, self.optimizer, state)
        emit(Checkpointed(state.step, self._progress(), str(folder), time.monotonic() - started))

    def _take_best(self, emit: Callable[[Event], None]) -> bool:
        """Put the best weights back if the final ones validate worse; return whether it was so."""
        final = self._validate(emit)
        if self.best_weights is None or final <= self.best_bits * OVERFIT_MARGIN:
            return False
        for name, weight in self.model.named_parameters():
            weight.data.copy_(self.best_weights[name])
        return True

    def _export(self) -> Path:
        request = self.request
        folder = request.run_folder / "model"
        if folder.exists():
            remove_folder(folder)

        def write(temporary: Path) -> dict[str, object]:
            export_model(self.model, request.tokenizer_folder, temporary, generation=request.generation)
            return {"step": self.counters.step, "total_tokens": self.counters.total_tokens}

        committed = commit_folder(folder, "model", write).folder
        if not self.should_stop():
            drop_checkpoints(self.checkpoints)
        return committed


class Milestones:
    """Equally spaced fractions of the budget, each reached once: 1/n, 2/n, ... below 1."""

    def __init__(self, count: int, progress: float) -> None:
        self.count = count
        self.passed = int(progress * count)

    def reached(self, progress: float) -> bool:
        """Return whether a further fraction is reached at `progress`."""
        now = min(int(progress * self.count), self.count - 1)
        if now <= self.passed:
            return False
        self.passed = now
        return True


class ThinnedSteps:
    """Step events, at most one each `seconds`; the mean loss of those left out goes into the next."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.losses: list[float] = []
        self.last: StepDone | None = None
        self.emitted_at = -math.inf

    def take(self, event: StepDone) -> Iterator[StepDone]:
        """Return the event to pass on now, if one is due."""
        self.losses.append(event.loss)
        self.last = event
        if time.monotonic() - self.emitted_at >= self.seconds:
            yield from self.flush()

    def flush(self) -> Iterator[StepDone]:
        """Return what is held back, if anything."""
        if self.last is not None and self.losses:
            self.emitted_at = time.monotonic()
            yield replace(self.last, loss=float(np.mean(self.losses)))
            self.losses.clear()


class ValidationSample(BaseModel):
    """Tokens of some held-out documents, and the bytes that they stand for."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    pieces: list[np.ndarray]
    num_bytes: int


def choose_validation_sample(shards: TokenShards, tokenizer: Tokenizer, max_tokens: int) -> ValidationSample:
    """Return stretches of held-out documents spread evenly over the text, about `max_tokens` tokens in all.

    Each stretch starts with the token before its first document, which that one's first token is predicted from.
    A document longer than twice its share is cut: a book must not make each validation read all of it.
    """
    offsets = shards.validation_offsets().astype(np.int64)
    tokens = shards.tokens("validation")
    count = len(offsets) - 1
    num_stretches = min(VALIDATION_STRETCHES, count)
    share = max(1, max_tokens // num_stretches)
    firsts = [index * count // num_stretches for index in range(num_stretches)] + [count]
    pieces, num_bytes = [], 0
    for first, limit in pairwise(firsts):
        last = first + 1
        while last < limit and offsets[last, 0] - offsets[first, 0] < share:
            last += 1
        start, end = int(offsets[first, 0]), int(offsets[last, 0])
        if end - start > 2 * share:
            end = start + share
            num_bytes += len(tokenizer.decode_bytes(tokens[start:end].tolist()))
        else:
            num_bytes += int(offsets[last, 1] - offsets[first, 1])
        pieces.append(np.asarray(tokens[start - 1 : end]))
    return ValidationSample(pieces=pieces, num_bytes=num_bytes)


def validate(model: Transformer, sample: ValidationSample) -> float:
    """Return the bits per byte of the sample."""
    nats = sum(float(score_tokens(model, piece).sum()) for piece in sample.pieces)
    return nats / math.log(2) / max(1, sample.num_bytes)
