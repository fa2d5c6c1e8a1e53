"""One training run in this process: checkpoints, validation, samples and rollbacks around the
trainer.

It leaves checkpoints and a committed Hugging Face folder.
"""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from lightlm.data.loader import Batch
from lightlm.data.shards import open_shards
from lightlm.errors import CorruptError, TrainingError
from lightlm.model.adapters import drop_adapters
from lightlm.training.batches import move_batches, open_loader
from lightlm.training.checkpoint import (
    TrainingState,
    list_checkpoints,
    load_best,
    load_latest,
    save_checkpoint,
    start_from,
)
from lightlm.training.device import build_model, choose_tuned, reset_model
from lightlm.training.events import (
    CheckpointDamaged,
    Checkpointed,
    Event,
    RolledBack,
    Sampled,
    StepDone,
    Validated,
)
from lightlm.training.export import publish, publish_untouched
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
from lightlm.training.trainer import Diverged, Progress, train
from lightlm.training.validator import Validator

EVENT_SECONDS = 0.25
"""Seconds between two step events; the losses in between are averaged into the next."""

EARLY_SAMPLES = (0.01, 0.1)
"""Fractions of the budget at which a sample is written in addition to those of the validations: a
model changes most then.
"""

MAX_ROLLBACKS = 3
"""Rollbacks to an earlier state, after which a run ends with that state."""

ROLLBACK_SCALE = 0.5
"""Factor on the learning rates at each rollback."""


class TrainingRun:
    """Builds all parts of a run, resumes it from its newest checkpoint, and runs it to its end."""

    def __init__(
        self,
        home: Path,
        request: TrainRequest,
        should_stop: Callable[[], bool] = lambda: False,
        ranks: Ranks = ALONE,
    ) -> None:
        self.home = home
        self.request = request
        self.ranks = ranks
        self.trainer = request.trainer
        self.should_stop = should_stop
        self.shards = open_shards(request.shards_folder)
        reset_peak_memory(self.trainer.device)
        is_filled = request.start_folder is not None
        self.model = build_model(request.model, request.trainer, is_filled=is_filled)
        if is_filled:
            self._reset_weights()
        self.optimizer = Optimizer(self.model, request.trainer, ranks)
        self.checkpoints = request.run_folder / "checkpoints"
        self.damaged: list[tuple[Path, str]] = []
        self.state, best_weights = self._restore()
        self.validator = Validator(
            request, self.model, self.shards, self.state.best_bits_per_byte, best_weights
        )

        # The smaller one: the checkpoint's was reduced for memory, or the request's was after a
        # memory kill.
        micro = min(
            self.state.micro_batch_size or request.trainer.micro_batch_size,
            request.trainer.micro_batch_size,
        )

        self.counters = Progress(
            self.state.step,
            self.state.total_tokens,
            micro,
            self.state.learning_rate_scale,
            self.state.loss_ema,
        )
        self.num_rollbacks = self.state.rollbacks
        self.start_bits = self.state.start_bits_per_byte
        self.recent_events = RecentEvents(self.state.events)
        self.criterion = self._choose_criterion()
        self.scoring = ScoringTime(request.scoring_tokens, request.scoring_seconds)
        self.last_factor = self.state.learning_rate_factor
        self.validations = Milestones(self.trainer.num_validations, self._progress())
        self.early_samples = [fraction for fraction in EARLY_SAMPLES if fraction > self._progress()]
        self.saving = CheckpointSchedule(
            self.trainer.num_checkpoints, self._progress(), time.monotonic
        )
        self.started = time.monotonic()

    def _reset_weights(self) -> None:
        """Give the model the weights that the run began with, frozen and adapted as asked."""
        if self.request.start_folder is None:
            reset_model(self.model, self.trainer)
            return
        drop_adapters(self.model)
        start_from(self.request.start_folder, self.model)
        choose_tuned(self.model, self.trainer)

    def _restore(self) -> tuple[TrainingState, dict[str, torch.Tensor] | None]:
        """Load the newest checkpoint into model and optimizer, where there is one.

        Return its state and the best weights that it keeps.
        """
        found = load_latest(
            self.home, self.checkpoints, self.model, self.optimizer, self._note_damage
        )
        if found is not None:
            folder = list_checkpoints(self.checkpoints)[0]
            return found, load_best(folder, self.model)
        return TrainingState(), None

    def _note_damage(self, folder: Path, aside: Path, error: CorruptError) -> None:
        self.damaged.append((aside, f"{folder.name} is damaged: {str(error).partition(';')[0]}"))

    def _report_damage(self, emit: Callable[[Event], None]) -> None:
        while self.damaged:
            aside, reason = self.damaged.pop(0)
            emit(CheckpointDamaged(self.counters.step, self._progress(), str(aside), reason))

    def _choose_criterion(self) -> StopCriterion:
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
        """Train to the end of the budget, emit events, commit the model's folder, return figures.

        A run whose model is committed already is not trained again: its result is returned. A
        resumed run emits the events shortly before its checkpoint again: the parent that should
        have logged them may have died.

        Raises:
            TrainingError: training diverged before anything could be saved, or memory does not hold
                one sequence.
            StoreError: the disk refused.
        """
        finished = read_result(self.request.run_folder)
        if finished is not None:
            result, events = finished
            RecentEvents(events).replay(emit)
            return result

        self.recent_events.replay(emit)
        self._report_damage(emit)
        emit = self.recent_events.keeping(emit)
        self.started = time.monotonic()
        if self.request.keep_start and self.start_bits is None:
            if self._is_too_late():
                drop_adapters(self.model)
                return publish_untouched(self.model, self.request, self.ranks)
            self.start_bits = self._validate(emit, is_sampled=False)

        with open_loader(self.request, self.shards, self.counters.step, self.ranks) as loader:
            batches = move_batches(loader, self.trainer.device)
            while self._train(batches, emit):
                continue

        seconds = self.training_seconds
        ended_at = time.monotonic()
        is_stopped = self.ranks.any(self.should_stop())
        if is_stopped or self._is_worth_saving():
            self._save_last(emit)

        used_best, final_bits, kept_start = False, None, False
        if not is_stopped:
            final_bits = self._validate(emit)
            used_best = self.validator.restore_best(final_bits)
            final_bits = self.validator.best_bits if used_best else final_bits
            kept_start = self.start_bits is not None and not final_bits < self.start_bits
        if kept_start:
            self._reset_weights()
        whole = gather_model(self.model, self.ranks.is_first)
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
            start_bits_per_byte=self.start_bits,
            final_bits_per_byte=self.start_bits if kept_start else final_bits,
            kept_start=kept_start,
            ended_at=ended_at,
        )

        if whole is not None:
            return publish(whole, self.request, result, self.recent_events.dump(), self.shards)

        return result

    def _is_too_late(self) -> bool:
        """Return whether the time does not suffice for a few steps and for comparing the scores."""
        left = self.request.deadline - time.monotonic()
        is_late = isinstance(self.criterion, TimeCriterion) and left < self.request.least_seconds
        return self.ranks.lead(is_late)[0]

    def _is_worth_saving(self) -> bool:
        """Return whether the end is saved once more before the model's folder is written."""
        if self.trainer.num_checkpoints == 0:  # the plan says that it takes too long
            return False
        return self.counters.step > self.state.step or not list_checkpoints(self.checkpoints)

    def _train(self, batches: Iterator[Batch], emit: Callable[[Event], None]) -> bool:
        """Train until the budget ends or training diverges; return whether to go on."""
        steps = train(
            self.model,
            self.optimizer,
            batches,
            self.trainer,
            self.criterion,
            counters=self.counters,
            should_stop=self.should_stop,
            ranks=self.ranks,
        )

        try:
            self._follow(steps, emit)
        except Diverged as error:
            return self._roll_back(error, emit)

        return False

    def _follow(self, steps: Iterator[Event], emit: Callable[[Event], None]) -> None:
        """Pass the trainer's events on, throttled; validate and save when it is time."""
        throttled = ThrottledSteps(EVENT_SECONDS)
        for event in steps:
            if not isinstance(event, StepDone):
                emit(event)
                continue
            self.last_factor = event.learning_rate_factor
            for due in throttled.take(event):
                emit(due)
            is_reached, is_due = self.ranks.lead(
                self.validations.reached(event.progress), self.saving.is_due(event.progress)
            )
            is_early = bool(self.early_samples) and event.progress >= self.early_samples[0]
            if is_early or is_reached or is_due:
                # a step comes before what it led to, and the checkpoint remembers it
                for due in throttled.flush():
                    emit(due)
            if is_early:
                self.early_samples.pop(0)
                self._sample(emit)
            if is_reached:
                self._validate(emit)
            if is_due:
                self._checkpoint(emit)

        for due in throttled.flush():
            emit(due)

    def _progress(self) -> float:
        return self.criterion.progress(self.counters.step)

    def _validate(self, emit: Callable[[Event], None], *, is_sampled: bool = True) -> float:
        bits, seconds = self.validator.validate()
        emit(Validated(self.counters.step, self._progress(), bits, seconds))

        if isinstance(self.criterion, TimeCriterion):
            num_tokens = self.validator.sample.num_tokens
            later = self.scoring.record(num_tokens, seconds, self.criterion.budget_seconds)
            self.criterion.extend(-later)

        if is_sampled:
            self._sample(emit)
        return bits

    def _sample(self, emit: Callable[[Event], None]) -> None:
        # Text needs one position after the other of a whole model: in shards, all layers would
        # travel for each.
        if self.request.sample_tokens and self.ranks.is_first and not self.ranks.is_sharded:
            text = self.validator.write_sample()
            emit(Sampled(self.counters.step, self._progress(), self.trainer.sample_prompt, text))

    def _checkpoint(self, emit: Callable[[Event], None]) -> None:
        started = time.monotonic()
        best_bits = self.validator.best_bits
        state = TrainingState(
            step=self.counters.step,
            total_tokens=self.counters.total_tokens,
            spent_seconds=self.criterion.spent_seconds
            if isinstance(self.criterion, TimeCriterion)
            else 0.0,
            micro_batch_size=self.counters.micro_batch_size,
            best_bits_per_byte=best_bits if math.isfinite(best_bits) else None,
            training_seconds=self.training_seconds,
            learning_rate_factor=self.last_factor,
            learning_rate_scale=self.counters.learning_rate_scale,
            loss_ema=self.counters.loss_ema,
            rollbacks=self.num_rollbacks,
            start_bits_per_byte=self.start_bits,
            events=self.recent_events.dump(),
        )

        self.validator.check_weights(self.counters.step)
        try:
            folder = save_checkpoint(
                self.checkpoints,
                self.model,
                self.optimizer,
                state,
                self.validator.best_weights,
                self.ranks,
            )
        except TrainingError as error:
            raise Diverged(str(error)) from None

        seconds = time.monotonic() - started
        self.saving.record(seconds)
        emit(Checkpointed(state.step, self._progress(), str(folder), seconds))

    def _save_last(self, emit: Callable[[Event], None]) -> None:
        """Save what was reached; if the weights are not finite, the newest finite ones."""
        try:
            self._checkpoint(emit)
        except Diverged as error:
            self._roll_back(error, emit)

    def _roll_back(self, error: Diverged, emit: Callable[[Event], None]) -> bool:
        """Go back to the newest good weights at half the rates, and skip the batches that diverged.

        Return whether training goes on; after too many rollbacks it ends there.
        """
        self.num_rollbacks += 1
        self._reset_weights()
        self.optimizer = Optimizer(self.model, self.trainer, self.ranks)
        found = load_latest(
            self.home, self.checkpoints, self.model, self.optimizer, self._note_damage
        )
        self._report_damage(emit)
        if found is None and self.num_rollbacks > MAX_ROLLBACKS:
            raise error

        state = found or TrainingState()
        self.counters.learning_rate_scale = ROLLBACK_SCALE * min(
            state.learning_rate_scale, self.counters.learning_rate_scale
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
