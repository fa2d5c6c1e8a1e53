"""The ranking of shapes: what each would reach on this text, machine and time, the best first.

Pure arithmetic: no clock, no worker, no torch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from lightlm.budget.calibration import load_calibration
from lightlm.budget.candidate import Candidate, TextFacts
from lightlm.budget.memory import RECOMPUTED_SPEED, choose_fit, fits
from lightlm.budget.parallel import Speedup, estimate_speedup
from lightlm.budget.probe import Probe
from lightlm.budget.recipe import choose_trainer
from lightlm.budget.reserve import Closing
from lightlm.budget.scaling import (
    Prediction,
    choose_batch_tokens,
    guess_context_length,
    predict_loss,
    useful_epochs,
    useful_parameters,
)
from lightlm.budget.shapes import (
    DEFAULT_SHAPE,
    WIDTHS,
    build_shape,
    choose_heads,
    depths_for,
    fits_heads,
)
from lightlm.budget.tiers import Tier
from lightlm.errors import ParameterError
from lightlm.model.accounting import count_matrix_parameters
from lightlm.model.config import ModelConfig
from lightlm.params import Params
from lightlm.training.config import TrainerConfig

EVALUATION_FRACTION = 0.15
"""Fraction of the time left that the final score may take; beyond it, it reads less text."""

LEAST_EVALUATION_SECONDS = 0.2
"""Seconds that the final score gets in any case."""

LEAST_TRAINING_SECONDS = 5.0
"""Seconds of training, if they are there, however small the text is."""

FLOOR_SECONDS = 2.0
"""Seconds of training below which the ultra-fast tier is trained instead, as a smoke test. In two
seconds a layer of 64 dims trains some eighty steps, on two cores.
"""

HELD_OUT_MULTIPLE = 8
"""Multiple of the held-out tokens that the context of a fixed shape does not exceed. Assumption."""


class TimeLeft(NamedTuple):
    """Seconds to the deadline, and the part of them reserved for the end of the run."""

    seconds: float
    closing: Closing


def limit_evaluation(text: TextFacts, tokens_per_second: float, seconds: float) -> float:
    """Return the seconds kept for the final score, of which `seconds` are left of the budget: for
    all held-out text, or a part of it, but for its first document whole.
    """
    share = max(EVALUATION_FRACTION * max(0.0, seconds), LEAST_EVALUATION_SECONDS)
    least = text.num_first_tokens / tokens_per_second
    return min(text.num_scored_tokens / tokens_per_second, max(share, least))


@dataclass(frozen=True)
class Ranking:
    """Shapes judged for params, a text, a machine's figures and a time."""

    params: Params
    text: TextFacts
    probe: Probe
    time: TimeLeft

    def rank(self) -> list[Candidate]:
        """Return the shapes that memory holds and the text can fill, the best prediction first.

        Raises:
            ParameterError: no shape satisfies what params fix, or none fits into memory.
        """
        machine = self.probe.machine
        candidates = [self.judge(model) for model in self._list_shapes()]
        fitting = [c for c in candidates if fits(self.params, machine, c.model)]

        most = useful_parameters(self.text.unique_bytes)
        fitting = [c for c in fitting if count_matrix_parameters(c.model) <= most] or fitting[:1]
        if not fitting:
            raise ParameterError(
                "no shape satisfies the model section and fits into "
                f"{machine.memory_bytes / 1e9:.1f} GB; fix fewer of model.* or give a "
                "smaller context_length"
            )

        return sorted(fitting, key=lambda c: c.prediction.bits_per_byte)

    def judge(self, model: ModelConfig) -> Candidate:
        """Return a shape with the speed, the time and the loss that are expected of it."""
        is_compiled = self.probe.prefers_compiled(
            model, is_demanded=self.params.training.compile == "on"
        )
        speed = self.speed_of(model, is_compiled=is_compiled)
        seconds = max(FLOOR_SECONDS, self.training_seconds(model))
        useful = self._useful_tokens / speed
        return Candidate(
            model=model,
            is_compiled=is_compiled,
            tokens_per_second=speed,
            training_seconds=min(seconds, max(useful, LEAST_TRAINING_SECONDS)),
            prediction=self.predict(model, speed * min(seconds, useful)),
            is_cut=useful < seconds,
        )

    def speed_of(self, model: ModelConfig, *, is_compiled: bool) -> float:
        """Return the tokens per second that all devices together train."""
        speed = self.probe.speed_of(model, is_compiled=is_compiled)
        if choose_fit(self.params, self.probe.machine, model).is_recomputed:
            speed *= RECOMPUTED_SPEED
        return speed * self.speedup_of(model, speed).factor

    def speedup_of(
        self, model: ModelConfig, tokens_per_second: float, more_machines: int = 0
    ) -> Speedup:
        """Return what several devices gain over one that trains `tokens_per_second`."""
        machine = self.probe.machine
        num_nodes = self.params.training.num_nodes + more_machines
        num_ranks = machine.num_devices * num_nodes
        seconds = max(FLOOR_SECONDS, self.training_seconds())
        tokens = num_ranks * tokens_per_second * seconds
        batch = self.params.training.batch_tokens or choose_batch_tokens(
            tokens, model.context_length, machine.device
        )
        return estimate_speedup(machine, num_nodes, model, tokens_per_second, batch)

    def judge_fixed(self, tier: Tier | None) -> Candidate:
        """Return the shape of a tier, or the default one, with what params fix."""
        fixed = self.params.model
        shape = DEFAULT_SHAPE if tier is None else tier._asdict()
        context = fixed.context_length or int(shape["context_length"])

        if fixed.context_length is None:
            most = min(
                self.text.num_train_tokens, self.text.num_validation_tokens * HELD_OUT_MULTIPLE
            )
            while context > load_calibration().context.shortest and context + 1 > most:
                context //= 2

        model = self._build(
            fixed.num_layers or int(shape["num_layers"]),
            fixed.model_dim or self._nearest_width(int(shape["model_dim"])),
            int(shape["num_heads"]),
            context,
        )

        return self.judge(model)

    def predict(self, model: ModelConfig, tokens: float) -> Prediction:
        """Return the loss after `tokens` of training, corrected by earlier runs."""
        worth = self.text.worth_of(tokens * self.text.bytes_per_token)
        known = predict_loss(count_matrix_parameters(model), worth, worth, self.text.difficulty)
        correction = self.probe.correction
        return known.corrected(correction.loss, correction.relative_error)

    def training_seconds(self, model: ModelConfig | None = None) -> float:
        """Return the seconds left for the training loop; for `model`, by its speed of scoring."""
        left = self.time.seconds - self.time.closing.seconds
        if model is None:
            return left * (1 - EVALUATION_FRACTION / 2)
        return left - self.time.closing.scoring_margin * self.evaluation_seconds(model)

    def evaluation_seconds(self, model: ModelConfig) -> float:
        """Return the seconds kept for the final score: of all held-out text, or a part of it."""
        return limit_evaluation(self.text, self.probe.score_speed(model), self.time.seconds)

    def whole_evaluation_seconds(self, model: ModelConfig) -> float:
        """Return the seconds that scoring all held-out text takes."""
        return self.text.num_scored_tokens / self.probe.score_speed(model)

    def is_shorter_than(self, seconds: float) -> bool:
        """Return whether the clock bounds training, and leaves it less than `seconds`."""
        return self.params.budget.max_steps is None and self.training_seconds() < seconds

    def choose_trainer(
        self,
        model: ModelConfig,
        *,
        is_compiled: bool,
        expected_tokens: float | None = None,
        max_steps: int | None = None,
    ) -> TrainerConfig:
        """Return how a shape would be trained, for the tokens of all the time if none are given."""
        tokens = expected_tokens
        if tokens is None:
            speed = self.speed_of(model, is_compiled=is_compiled)
            tokens = speed * max(FLOOR_SECONDS, self.training_seconds())

        compiled = self.probe.find_compiled(model) if is_compiled else None
        return choose_trainer(
            self.params,
            self.probe.machine,
            model,
            expected_tokens=tokens,
            train_tokens=self.text.epoch_tokens,
            is_compiled=is_compiled,
            max_steps=max_steps,
            batch_tokens=compiled.batch_tokens if compiled is not None else None,
            variant=self.probe.find_variant(model.context_length),
        )

    def _list_shapes(self) -> Iterator[ModelConfig]:
        """Yield every shape of the grid that agrees with what params fix."""
        fixed = self.params.model
        for dim in [fixed.model_dim] if fixed.model_dim else WIDTHS:
            if fixed.model_dim is None and not self._divides(dim):
                continue
            for layers in [fixed.num_layers] if fixed.num_layers else depths_for(dim):
                yield self._build(layers, dim)

    def _divides(self, dim: int) -> bool:
        """Return whether a width can have the heads that params fix."""
        fixed = self.params.model
        return fits_heads(dim, fixed.num_heads or choose_heads(dim), fixed.num_kv_heads)

    def _nearest_width(self, dim: int) -> int:
        """Return a table's width, or the next one that can have the heads that params fix."""
        if self.params.model.num_heads is None or self._divides(dim):
            return dim
        return min(filter(self._divides, WIDTHS), key=lambda width: abs(width - dim), default=dim)

    def _build(
        self, layers: int, dim: int, heads: int | None = None, context: int | None = None
    ) -> ModelConfig:
        fixed = self.params.model
        if heads is None or dim % (2 * heads):
            heads = choose_heads(dim)  # a tier's heads do not divide a width that params fix

        return build_shape(
            self.params,
            vocab_size=self.text.vocab_size,
            num_layers=layers,
            model_dim=dim,
            num_heads=fixed.num_heads or heads,
            context_length=fixed.context_length or context or self._guess_context(),
        )

    @property
    def _useful_tokens(self) -> float:
        """Tokens that training reads with gain: those of the text, for as many epochs as help."""
        return useful_epochs(self.text.num_train_bytes) * self.text.epoch_tokens

    def _guess_context(self) -> int:
        speed = load_calibration().speed.efficiency * self.probe.machine.usual_flops
        flops = speed * max(FLOOR_SECONDS, self.training_seconds())
        return guess_context_length(flops, self.text.num_train_tokens, self._useful_tokens)
