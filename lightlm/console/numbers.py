"""Numbers of training from its events, smoothed for a reader, and the curve that they make."""

import math
from collections import deque

from lightlm.quantities import format_count
from lightlm.training.events import Event, Sampled, StepDone, Validated

STEPS_SHOWN = 20
"""Steps that the shown loss and speed are means over: one step's loss jumps too much to read."""

CURVE_POINTS = 200
"""Points that the curve of a whole run has at most: more than a wide terminal has columns."""


class TrainingNumbers:
    """The newest numbers of the events, smoothed over the last steps."""

    def __init__(self) -> None:
        self.step = 0
        self.total_tokens = 0
        self.progress = 0.0
        self.bits_per_byte: float | None = None
        self.sample: Sampled | None = None
        self.learning_rate_factor: float | None = None
        self.held_out: list[tuple[float, float]] = []
        self._recent: deque[StepDone] = deque(maxlen=STEPS_SHOWN)
        self._curve: dict[int, tuple[float, int]] = {}

    def take(self, event: Event) -> None:
        """Learn from an event."""
        self.step = max(self.step, event.step)
        self.progress = max(self.progress, event.progress)
        if isinstance(event, StepDone):
            self.total_tokens = event.total_tokens
            self.learning_rate_factor = event.learning_rate_factor
            self._recent.append(event)
            if math.isfinite(event.loss):
                place = int(event.progress * CURVE_POINTS)
                total, number = self._curve.get(place, (0.0, 0))
                self._curve[place] = (total + event.loss, number + 1)
        elif isinstance(event, Validated):
            self.bits_per_byte = event.bits_per_byte
            if math.isfinite(event.bits_per_byte):
                self.held_out.append((event.progress, event.bits_per_byte))
        elif isinstance(event, Sampled):
            self.sample = event

    @property
    def loss(self) -> float | None:
        """Nats per token, the mean of the last steps; None before the first."""
        losses = [step.loss for step in self._recent]
        return sum(losses) / len(losses) if losses else None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens per second over the last steps; None before the first."""
        seconds = sum(step.seconds for step in self._recent)
        return sum(step.batch_tokens for step in self._recent) / seconds if seconds > 0 else None

    def bits_curve(self, bytes_per_token: float) -> list[tuple[float, float]]:
        """Return the training loss in bits per byte over the fraction of the budget; empty without
        a rate.
        """
        if bytes_per_token <= 0:
            return []
        scale = 1 / (math.log(2) * bytes_per_token)
        return [
            (place / CURVE_POINTS, scale * t / n)
            for place, (t, n) in sorted(dict(self._curve).items())
        ]

    def describe(self) -> list[str]:
        """Return what is known, a phrase each."""
        phrases = [f"step {self.step:,}"] if self.step else []
        if self.loss is not None:
            phrases.append(f"loss {self.loss:.3f}")
        if self.bits_per_byte is not None:
            phrases.append(f"{self.bits_per_byte:.3f} bits per byte")
        if self.tokens_per_second is not None:
            phrases.append(f"{self.tokens_per_second:,.0f} tokens/s")
        if self.total_tokens:
            phrases.append(f"{format_count(self.total_tokens)} tokens")
        return phrases
