"""One training run in this process: model, data, checkpoints, validation and samples around the
trainer.

Owns what happens between two steps and what a run leaves: checkpoints, and a committed Hugging Face
folder.
"""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from lightlm.data.loader import Batch, ThreadedDataLoader
from lightlm.data.shards import open_shards
from lightlm.data.tokenization.tokenizer import load_tokenizer
from lightlm.errors import CorruptError, TrainingError
from lightlm.evaluation.scoring import score_tokens
from lightlm.generation.sampling import SamplingConfig
from lightlm.generation.text import Generator
from lightlm.training.checkpoint import (
    TrainingState,
    list_checkpoints,
    load_best,
    load_latest,
    save_checkpoint,
    start_from,
)
from lightlm.training.device import build_model, reset_model
from lightlm.training.events import (
    CheckpointDamaged,
    Checkpointed,
    Event,
    RolledBack,
    Sampled,
    StepDone,
    Validated,
)
from lightlm.training.export import publish
from lightlm.training.messages import MODEL_FOLDER, TrainRequest, TrainResult, read_result
from lightlm.training.optimizer import Optimizer
from lightlm.training.ranks import ALONE, Ranks
from lightlm.training.recent_events import RecentEvents
from lightlm.training.sharding import gather_model
from lightlm.training.stop_criterion import (
    CheckpointSchedule,
    Milestones,
    ScoringTime,
    StepCriterion,
    StopCriterion,
    TimeCriterion,
)
from lightlm.training.throttle import ThrottledSteps
from lightlm.training.timing import reset_peak_memory, used_memory
from lightlm.training.trainer import SPIKE_FACTOR, Diverged, Progress, train
from lightlm.training.validation import choose_validation_sample, validate

EVENT_SECONDS = 0.25
"""Between two step events; the loss of those between is averaged into the next."""

EARLY_SAMPLES = (0.01, 0.1)
"""Fractions of the budget at which a sample is written, beside those of the validations: a model
changes most then.
"""

MAX_ROLLBACKS = 3
"""Ways back to an earlier state, after which a run ends with that state."""

ROLLBACK_SCALE = 0.5
"""Of the learning rates, that each way back leaves."""

OVERFIT_MARGIN = 1.002
"""The final weights give way to the best ones where these validate better by more than
this factor.
"""


class TrainingRun:
    """Builds all parts of a run, resumes it from its newest checkpoint, and runs it to its end."""

    def __init__(
        self,
        request: TrainRequest,
        should_stop: Callable[[], bool] = lambda: False,
        ranks: Ranks = ALONE,
    ) -> None:
        self.request = request
        self.ranks = ranks
        self.trainer = request.trainer
        self.should_stop = should_stop
        self.shards = open_shards(request.shards_folder)
        self.tokenizer = load_tokenizer(request.tokenizer_folder)
        reset_peak_memory(self.trainer.device)
        self.model = build_model(request.model, request.trainer)
        self.optimizer = Optimizer(self.model, request.trainer, ranks)
        self.checkpoints = request.run_folder / "checkpoints"
        self.sample = choose_validation_sample(
            self.shards, self.tokenizer, request.validation_tokens
        )

        self.best_weights: dict[str, torch.Tensor] | None = None
        self.damaged: list[tuple[Path, str]] = []
        self.state = self._restore()
        # The smaller one: the checkpoint's was reduced for memory, or the request's was after a
        # memory kill.
        micro = min(
            self.state.micro_batch_size or request.trainer.micro_batch_size,
            request.trainer.micro_batch_size,
        )

        share = self.state.learning_rate_scale
        loss_ema = self.state.loss_ema
        self.counters = Progress(self.state.step, self.state.total_tokens, micro, share, loss_ema)
        self.num_rollbacks = self.state.rollbacks
        self.recollection = RecentEvents(self.state.events)
        self.pace = self._choose_pace()
        self.scoring = ScoringTime(request.scoring_tokens, request.scoring_seconds)
        self.best_bits = (
            math.inf if self.state.best_bits_per_byte is None else self.state.best_bits_per_byte
        )

        self.last_factor = self.state.learning_rate_factor
        self.validations = Milestones(self.trainer.num_validations, self._progress())
        self.early_samples = [fraction for fraction in EARLY_SAMPLES if fraction > self._progress()]
        self.saving = CheckpointSchedule(
            self.trainer.num_checkpoints, self._progress(), time.monotonic
        )
        self.started = time.monotonic()

    def _restore(self) -> TrainingState:
        """Return the newest checkpoint's state, its weights in the model; else a start's weights,
        or fresh ones.
        """
        found = load_latest(self.checkpoints, self.model, self.optimizer, self._note_damage)
        if found is not None:
            folder = list_checkpoints(self.checkpoints)[0]
            self.best_weights = load_best(folder, self.model)
            return found
        if self.request.start_folder is not None:
            start_from(self.request.start_folder, self.model)
        return TrainingState()

    def _note_damage(self, folder: Path, aside: Path, error: CorruptError) -> None:
        self.damaged.append((aside, f"{folder.name} is damaged: {str(error).partition(';')[0]}"))

    def _tell_damage(self, emit: Callable[[Event], None]) -> None:
        while self.damaged:
            aside, reason = self.damaged.pop(0)
            emit(CheckpointDamaged(self.counters.step, self._progress(), str(aside), reason))

    def _choose_pace(self) -> StopCriterion:
        if self.trainer.max_steps is not None:
            return StepCriterion(self.trainer.max_steps)
        spent = self.state.spent_seconds
        remaining = self.request.deadline - time.monotonic()
        return TimeCriterion(spent + remaining, time.monotonic, spent)

    @property
    def training_seconds(self) -> float:
        """Seconds of training, those before a restart included."""
        return self.state.training_seconds + time.monotonic() - self.started

    def run(self, emit: Callable[[Event], None]) -> TrainResult:
        """Train to the end of the budget, tell `emit`, commit the model's folder, return what was
        reached.

        A run whose model is committed already is not trained again: its result is returned. What
        was told shortly before a checkpoint is told again to who resumes from it: nobody may have
        heard it.

        Raises:
            TrainingError: training came apart before anything could be saved, or memory does not
                hold one sequence.
            StoreError: the disk refused.
        """
        finished = read_result(self.request.run_folder)
        if finished is not None:
            result, events = finished
            RecentEvents(events).tell(emit)
            return result

        self.recollection.tell(emit)
        self._tell_damage(emit)
        emit = self.recollection.keeping(emit)
        self.started = time.monotonic()

        with self._open_loader() as loader:
            batches = self._move(loader)
            while self._train(batches, emit):
                continue

        seconds = self.training_seconds
        ended_at = time.monotonic()
        is_stopped = self.ranks.any(self.should_stop())
        if self.counters.step > self.state.step or not list_checkpoints(self.checkpoints):
            self._save_last(emit)

        used_best = False if is_stopped else self._take_best(emit)
        result = TrainResult(
            folder=self.request.run_folder / MODEL_FOLDER,
            step=self.counters.step,
            total_tokens=self.counters.total_tokens,
            training_seconds=seconds,
            final_learning_rate_factor=self.last_factor,
            tokens_per_second=self.counters.total_tokens / max(seconds, 1e-9),
            micro_batch_size=self.counters.micro_batch_size or self.trainer.micro_batch_size,
            memory_bytes=used_memory(self.trainer.device),
            is_stopped=is_stopped,
            used_best_checkpoint=used_best,
            num_rollbacks=self.num_rollbacks,
            ended_at=ended_at,
        )

        whole = gather_model(self.model, self.ranks.is_first)
        if whole is not None:
            publish(whole, self.request, result, self.recollection.dump())

        return result

    def _train(self, batches: Iterator[Batch], emit: Callable[[Event], None]) -> bool:
        """Train until the budget ends or training comes apart; return whether to go on, from an
        earlier state.
        """
        steps = train(
            self.model,
            self.optimizer,
            batches,
            self.trainer,
            self.pace,
            counters=self.counters,
            should_stop=self.should_stop,
            ranks=self.ranks,
        )

        try:
            self._follow(steps, emit)
        except Diverged as error:
            return self._roll_back(error, emit)

        return False

    def _open_loader(self) -> ThreadedDataLoader:
        return ThreadedDataLoader(
            self.shards.tokens("train"),
            context_length=self.request.model.context_length,
            batch_size=max(1, self.trainer.batch_tokens // self.request.model.context_length),
            seed=self.trainer.seed,
            start_step=self.counters.step,
            rank=self.ranks.rank,
            world_size=self.ranks.size,
            pin_memory=self.trainer.device.startswith("cuda"),
        )

    def _move(self, loader: ThreadedDataLoader) -> Iterator[Batch]:
        device = self.trainer.device
        if device == "cpu":
            return iter(loader)

        # widened there; other devices may have no unsigned ids
        is_narrow = device.startswith("cuda")
        return (
            Batch(
                *(
                    ids.to(device, non_blocking=True)
                    for ids in (batch if is_narrow else batch.widen())
                )
            )
            for batch in loader
        )

    def _follow(self, steps: Iterator[Event], emit: Callable[[Event], None]) -> None:
        """Pass the trainer's events on, thinned, and validate and save when it is time."""
        thinned = ThrottledSteps(EVENT_SECONDS)
        for event in steps:
            if not isinstance(event, StepDone):
                emit(event)
                continue
            self.last_factor = event.learning_rate_factor
            for due in thinned.take(event):
                emit(due)
            is_reached, is_due = self.ranks.lead(
                self.validations.reached(event.progress), self.saving.is_due(event.progress)
            )
            is_early = bool(self.early_samples) and event.progress >= self.early_samples[0]
            if is_early or is_reached or is_due:
                # a step is told before what came of it, and the checkpoint remembers it
                for due in thinned.flush():
                    emit(due)
            if is_early:
                self.early_samples.pop(0)
                self._sample(emit)
            if is_reached:
                self._validate(emit)
            if is_due:
                self._checkpoint(emit)

        for due in thinned.flush():
            emit(due)

    def _progress(self) -> float:
        return self.pace.progress(self.counters.step)

    def _validate(self, emit: Callable[[Event], None]) -> float:
        started = time.monotonic()
        bits = validate(self.model, self.sample)
        seconds = time.monotonic() - started
        emit(Validated(self.counters.step, self._progress(), bits, seconds))

        if isinstance(self.pace, TimeCriterion):
            self.pace.extend(
                -self.scoring.record(self.sample.num_tokens, seconds, self.pace.budget_seconds)
            )

        if bits < self.best_bits:
            self.best_bits = bits
            if self.request.keep_best:
                self.best_weights = {
                    name: weight.detach().clone() for name, weight in self.model.named_parameters()
                }

        self._sample(emit)
        return bits

    def _sample(self, emit: Callable[[Event], None]) -> None:
        # A text wants one position after the other of a whole model: in shards, all layers would
        # travel for each.
        if self.request.sample_tokens and self.ranks.is_first and not self.ranks.is_sharded:
            text = self._write_sample()
            emit(Sampled(self.counters.step, self._progress(), self.trainer.sample_prompt, text))

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
        state = TrainingState(
            step=self.counters.step,
            total_tokens=self.counters.total_tokens,
            spent_seconds=self.pace.spent_seconds if isinstance(self.pace, TimeCriterion) else 0.0,
            micro_batch_size=self.counters.micro_batch_size,
            best_bits_per_byte=self.best_bits if math.isfinite(self.best_bits) else None,
            training_seconds=self.training_seconds,
            learning_rate_factor=self.last_factor,
            learning_rate_scale=self.counters.learning_rate_scale,
            loss_ema=self.counters.loss_ema,
            rollbacks=self.num_rollbacks,
            events=self.recollection.dump(),
        )

        self._check_sanity()
        try:
            best = self.best_weights
            folder = save_checkpoint(
                self.checkpoints, self.model, self.optimizer, state, best, self.ranks
            )
        except TrainingError as error:
            raise Diverged(str(error)) from None

        seconds = time.monotonic() - started
        self.saving.record(seconds)
        emit(Checkpointed(state.step, self._progress(), str(folder), seconds))

    def _check_sanity(self) -> None:
        """Refuse weights that are finite and yet of no use: they would be what a way
        back leads to.
        """
        piece = self.sample.pieces[0][: self.request.model.context_length + 1]
        nats = float(score_tokens(self.model, piece).mean())
        if not nats <= SPIKE_FACTOR * math.log(self.request.model.vocab_size):
            lost = (
                f"after step {self.counters.step} the loss on held-out text is {nats:.3g} nats "
                "a token"
            )
            raise Diverged(f"{lost}; give a smaller training.learning_rate_scale")

    def _save_last(self, emit: Callable[[Event], None]) -> None:
        """Save what was reached; weights that are not finite give way to the newest that are."""
        try:
            self._checkpoint(emit)
        except Diverged as error:
            self._roll_back(error, emit)

    def _roll_back(self, error: Diverged, emit: Callable[[Event], None]) -> bool:
        """Go back to the newest good weights at half the rates, behind the batches that did it; or
        end there.

        Return whether training goes on.
        """
        self.num_rollbacks += 1
        self.optimizer = Optimizer(self.model, self.trainer, self.ranks)
        reset_model(self.model, self.trainer)
        found = load_latest(self.checkpoints, self.model, self.optimizer, self._note_damage)
        self._tell_damage(emit)
        if found is None and self.num_rollbacks > MAX_ROLLBACKS:
            raise error

        if found is None and self.request.start_folder is not None:
            start_from(self.request.start_folder, self.model)

        state = found or TrainingState()
        share = state.learning_rate_scale * ROLLBACK_SCALE
        self.counters.learning_rate_scale = min(
            share, self.counters.learning_rate_scale * ROLLBACK_SCALE
        )
        self.counters.loss_ema = state.loss_ema
        self.counters.consecutive_skipped = 0
        reason = str(error).partition(";")[0]
        emit(
            RolledBack(
                self.counters.step,
                self._progress(),
                state.step,
                self.counters.learning_rate_scale,
                reason,
            )
        )

        return self.num_rollbacks <= MAX_ROLLBACKS

    def _take_best(self, emit: Callable[[Event], None]) -> bool:
        """Put the best weights back if the final ones validate worse; return whether it was so."""
        final = self._validate(emit)
        if self.best_weights is None or final <= self.best_bits * OVERFIT_MARGIN:
            return False
        for name, weight in self.model.named_parameters():
            weight.data.copy_(self.best_weights[name])
        return True
