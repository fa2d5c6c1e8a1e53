"""Finished runs: their predicted and reached speed and score, by hardware and by text.

They lie under LIGHTLM_HOME, those that MLflow knows of included. They correct the speed of this
machine and the loss on a text that was trained on before.
"""

import math
import statistics
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, Field, TypeAdapter, ValidationError

from lightlm.budget.scaling import predict_loss
from lightlm.errors import StoreError
from lightlm.quantities import count
from lightlm.store.journal import Journal, read_journal
from lightlm.store.remembered import Remembered

REMEMBERED = 200
"""Newest runs that are remembered."""

RECENT = 10
"""Newest runs whose speed counts: other load on a machine changes."""

SHORTEST_SECONDS = 5.0
"""Seconds of training below which a run's speed means nothing."""

PRIOR_RUNS = 0.5
"""Weight of the law's own prediction, in runs on the same text."""

LEAST_SPEED = 0.5
MOST_SPEED = 1.2
"""Bounds on the fraction of the timed speed that earlier runs reached: a busy hour is no rule."""

LEAST_ERROR = 0.015
"""Least relative error of a corrected prediction: runs of the same plan differ by as much."""


LARGEST = 1e15
"""Most bytes, tokens or seconds of a run; a record with more is damaged or forged."""

Text = Annotated[str, Field(max_length=4096)]
Quantity = Annotated[float, Field(ge=0, le=LARGEST)]
Bits = Annotated[float, Field(gt=1e-9, le=1e3)]
Bound = Annotated[float, Field(ge=-1e3, le=1e3)]


class FinishedRun(
    BaseModel, serialize_by_alias=True, frozen=True, extra="ignore", allow_inf_nan=False
):
    """One run: its plan's figures and what it reached. Seconds, bytes, bits per byte.

    Whoever may write to MLflow can change its records: the bounds keep the arithmetic of a plan
    defined.
    """

    run: Text
    ended_at: Annotated[float, Field(ge=0, le=1e11)]
    hardware_id: Text
    hours: Quantity
    dataset: Text
    text_sha256: Text
    shape: Text
    matrix_parameters: Annotated[int, Field(ge=1, le=10**15)]
    seen_bytes: Quantity
    unique_bytes: Annotated[int, Field(ge=1, le=10**15)]
    difficulty: Annotated[float, Field(ge=0.01, le=100)] = Field(
        validation_alias=AliasChoices("difficulty", "hardness"), serialization_alias="hardness"
    )
    training_seconds: Quantity
    planned_tokens_per_second: Quantity
    tokens_per_second: Quantity
    predicted_bits_per_byte: Bits
    predicted_low: Bound
    predicted_high: Bound
    bits_per_byte: Bits
    is_whole: bool

    @property
    def is_as_predicted(self) -> bool:
        """Whether the score lies within the interval that the plan stated."""
        return self.predicted_low <= self.bits_per_byte <= self.predicted_high

    @property
    def law_bits_per_byte(self) -> float:
        """Bits per byte by today's law for the bytes read, without the plan's error of speed."""
        return predict_loss(
            self.matrix_parameters, self.seen_bytes, self.unique_bytes, self.difficulty
        ).bits_per_byte


class Correction(BaseModel, frozen=True):
    """The corrections of a plan by earlier runs: factors, and the relative error of the loss."""

    speed: float = 1.0
    num_speeds: int = 0
    loss: float = 1.0
    num_losses: int = 0
    relative_error: float | None = None

    def reasons(self) -> list[str]:
        """Return the corrections, a sentence each."""
        reasons = []
        if self.num_speeds:
            reasons.append(
                f"the last {'run' if self.num_speeds == 1 else f'{self.num_speeds} runs'} on this "
                f"hardware ran at {self.speed:.0%} of the timed speed"
            )

        if self.num_losses:
            change = (self.loss - 1) * 100
            reasons.append(
                f"{count(self.num_losses, 'earlier run')} on this text moved the prediction by "
                f"{change:+.1f} %"
            )

        return reasons


NO_CORRECTION = Correction()
"""Correction of a first run."""


class History:
    """The finished runs, oldest first: this machine's own, and those from MLflow."""

    def __init__(self, home: Path) -> None:
        self.own = home / "finished_runs.journal"
        path = home / "finished_runs_mlflow.json"
        self._from_mlflow = Remembered(path, TypeAdapter(FinishedRun), REMEMBERED)

    def read(self) -> list[FinishedRun]:
        """Return every run once, by its end; what cannot be read is left out."""
        own: list[Mapping[str, Any]] = []
        with suppress(OSError):
            own += [record for record, _ in read_journal(self.own)]
        runs = {run.run: run for run in (*self._from_mlflow.read(), *_parse(own))}
        return sorted(runs.values(), key=lambda run: run.ended_at)[-REMEMBERED:]

    def record(self, run: FinishedRun) -> None:
        """Remember a run; a disk that refuses is no reason to fail a finished run."""
        try:
            journal = Journal(self.own)
            journal.append(run.model_dump())
            journal.close()
        except StoreError:
            return

    def replace_mlflow_runs(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Replace the runs from MLflow that are remembered."""
        self._from_mlflow.replace(records)

    def correct(self, hardware_id: str, text_sha256: str) -> Correction:
        """Return the corrections by earlier runs on this hardware and on this held-out text."""
        runs = self.read()
        speeds = [
            run.tokens_per_second / run.planned_tokens_per_second
            for run in runs
            if run.hardware_id == hardware_id
            and run.training_seconds >= SHORTEST_SECONDS
            and run.planned_tokens_per_second > 0
        ][-RECENT:]

        same = [
            run
            for run in runs
            if run.text_sha256 == text_sha256
            and run.is_whole
            and run.training_seconds >= SHORTEST_SECONDS
        ]

        loss, error = _correct_loss(same)
        return Correction(
            speed=min(max(statistics.median(speeds), LEAST_SPEED), MOST_SPEED) if speeds else 1.0,
            num_speeds=len(speeds),
            loss=loss,
            num_losses=len(same),
            relative_error=error,
        )


def _correct_loss(runs: list[FinishedRun]) -> tuple[float, float | None]:
    """Return the factor on the law, and the relative error that is left (None: the law's own)."""
    if not runs:
        return 1.0, None

    logs = [math.log(run.bits_per_byte / run.law_bits_per_byte) for run in runs]
    mean = sum(logs) / (len(logs) + PRIOR_RUNS)
    if len(runs) < 3:
        return math.exp(mean), None

    spread = math.sqrt(sum((log - mean) ** 2 for log in logs) / len(logs))
    return math.exp(mean), max(LEAST_ERROR, 2.0 * spread)


def _parse(records: Iterable[Mapping[str, Any]]) -> Iterable[FinishedRun]:
    for record in records:
        try:
            yield FinishedRun.model_validate(record)
        except ValidationError:
            continue
