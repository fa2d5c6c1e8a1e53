"""The planner: probes a few shapes, predicts the bits per byte of every candidate, and takes the
best.

Owns the order of the choice: time, candidates, speed, loss, rates. `planner: tiers` and `manual`
fix the shape.
"""

from collections.abc import Callable, Iterator

from lightlm.budget.calibration import load_calibration
from lightlm.budget.candidate import Candidate, TextFacts, list_runners_up
from lightlm.budget.compiled import CompiledShapes
from lightlm.budget.history import NO_CORRECTION, Correction
from lightlm.budget.memory import RECOMPUTED_SPEED, choose_fit, fits, plan_memory_bytes
from lightlm.budget.plan import Plan
from lightlm.budget.probe import MATRIX_RATE_SECONDS, Computer, MachineRate, Probe
from lightlm.budget.recipe import choose_trainer
from lightlm.budget.reserve import Closing
from lightlm.budget.scaling import (
    Prediction,
    guess_context_length,
    is_repeated,
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
from lightlm.budget.switches import explain_switches
from lightlm.budget.tiers import Tier, tier_of
from lightlm.budget.timings import Timings
from lightlm.counting import count
from lightlm.errors import ParameterError
from lightlm.model.accounting import count_matrix_parameters, count_parameters
from lightlm.model.config import ModelConfig
from lightlm.params import Params
from lightlm.training.config import TrainerConfig

VALIDATION_FRACTION = 0.004
"""Of the training time; what one validation may take. Eight of them are 3 % of a run."""

SAMPLE_FROM_SECONDS = 10.0
"""Of training; a shorter run writes no samples on the way."""

SAMPLE_TOKENS = 48
"""Written at each validation; about 0.1 s on a CPU."""

EVALUATION_FRACTION = 0.15
"""Of the remaining time; the final score reads less text where all of it would take longer."""

LEAST_TRAINING_SECONDS = 5.0
"""However small the text is, where the time is there."""

FLOOR_SECONDS = 2.0
"""Of training; below this the ultra-fast tier is trained instead, as a smoke test. In two seconds a
layer of 64 dims takes some eighty steps, on two cores.
"""


class Planner:
    """Makes one plan. `remaining()` gives the seconds to the deadline, of which `closing` is kept
    for the end.

    `probed_seconds` of the time for measuring are spent already.
    """

    def __init__(
        self,
        params: Params,
        text: TextFacts,
        machine: MachineRate,
        remaining: Callable[[], float],
        closing: Closing,
        compiled: CompiledShapes | None = None,
        correction: Correction = NO_CORRECTION,
        probed_seconds: float = 2 * MATRIX_RATE_SECONDS,
    ) -> None:
        self.params = params
        self.text = text
        self.remaining = remaining
        self.closing = closing
        self.correction = correction or Correction()
        self.reasons: list[str] = []
        self.timings = Timings(
            params, machine, self.reasons, compiled, probed_seconds=probed_seconds
        )

    @property
    def machine(self) -> MachineRate:
        """The machine, with the number of threads that timing settled on."""
        return self.timings.machine

    @property
    def _probe(self) -> Probe:
        return Probe(machine=self.machine, shapes=self.timings.shapes, correction=self.correction)

    def plan(self, computer: Computer | None, probe: Probe | None = None) -> tuple[Plan, Probe]:
        """Return the plan and the figures it was made of.

        With `probe` its figures are taken; otherwise `computer` measures.

        Raises:
            ParameterError: no shape satisfies what params fix, or none fits into memory.
        """
        planner = self.params.budget.planner
        if planner == "measured" and self._is_short(FLOOR_SECONDS):
            return self._settle_floor(probe)

        if planner == "tiers":
            tier = tier_of(self.params.budget.hours)
            self.reasons.append(
                f"planner tiers: the {tier.name} tier of {self.params.budget.hours:g} h"
            )
            return self._settle(self._fixed(tier), [], probe, tier)

        if planner == "manual":
            self.reasons.append("planner manual: the shape is the one given")
            return self._settle(self._fixed(None), [], probe)

        return self._measure(computer, probe)

    def _measure(self, computer: Computer | None, probe: Probe | None) -> tuple[Plan, Probe]:
        if probe is not None:
            self.timings.shapes = list(probe.shapes)
            self.correction = probe.correction

        first = self._rank()
        if probe is None and computer is not None:
            self.timings.time_around(
                [candidate.model for candidate in first], computer, self._trainer
            )
            self.timings.try_other_ways(computer, self._trainer)
            favourite = self._rank()[0]
            self.timings.try_compiling(
                favourite.model, computer, self._trainer, favourite.training_seconds
            )
            if self._is_short(FLOOR_SECONDS / 2):  # a busy machine took long over the timings
                return self._settle_floor(probe)

        ranked = self._rank()
        best = ranked[0]
        if self.timings.shapes:
            self.reasons.append(f"timed here: {self.timings.summary()}")

        self.reasons += self.correction.reasons()
        self.reasons.append(
            f"of {count(len(ranked), 'shape')}, {count(best.model.num_layers, 'layer')} x "
            f"{best.model.model_dim} dims "
            f"balances what the model can hold against the {best.tokens:,} tokens it can read in "
            f"{best.training_seconds:.0f} s"
        )

        return self._settle(best, ranked[1:], probe)

    def _is_short(self, seconds: float) -> bool:
        """Return whether the clock bounds training, and leaves it less than `seconds`."""
        return self.params.budget.max_steps is None and self._training_seconds() < seconds

    def _settle_floor(self, probe: Probe | None) -> tuple[Plan, Probe]:
        left = max(0.0, self._training_seconds())
        self.reasons.append(
            f"{left:.1f} s are left for training, less than {FLOOR_SECONDS:.0f} s: "
            "the ultra-fast tier is trained, which shows that all works and is no useful model"
        )
        return self._settle(self._fixed(tier_of(0.0)), [], probe, tier_of(0.0))

    def _rank(self) -> list[Candidate]:
        candidates = [self._judge(model) for model in self._shapes()]
        fitting = [c for c in candidates if fits(self.params, self.machine, c.model)]
        most = useful_parameters(self.text.num_train_bytes)
        fitting = [c for c in fitting if count_matrix_parameters(c.model) <= most] or fitting[:1]
        if not fitting:
            raise ParameterError(
                "no shape satisfies the model section and fits into "
                f"{self.machine.memory_bytes / 1e9:.1f} GB; fix fewer of model.* or give a "
                "smaller context_length"
            )
        return sorted(fitting, key=lambda c: c.prediction.bits_per_byte)

    def _judge(self, model: ModelConfig) -> Candidate:
        is_compiled = self.timings.prefers_compiled(model)
        speed = self._probe.speed_of(model, is_compiled=is_compiled)
        if choose_fit(self.params, self.machine, model).is_recomputed:
            speed *= RECOMPUTED_SPEED

        seconds = max(FLOOR_SECONDS, self._training_seconds(model))
        useful = self._useful_tokens / speed
        return Candidate(
            model=model,
            is_compiled=is_compiled,
            tokens_per_second=speed,
            training_seconds=min(seconds, max(useful, LEAST_TRAINING_SECONDS)),
            prediction=self._predict(model, speed * min(seconds, useful)),
            is_cut=useful < seconds,
        )

    def _predict(self, model: ModelConfig, tokens: float) -> Prediction:
        seen = tokens * self.text.bytes_per_token
        known = predict_loss(
            count_matrix_parameters(model), seen, self.text.num_train_bytes, self.text.difficulty
        )
        return known.corrected(self.correction.loss, self.correction.relative_error)

    def _shapes(self) -> Iterator[ModelConfig]:
        """Yield every shape of the grid that agrees with what params fix."""
        fixed = self.params.model
        dims = [fixed.model_dim] if fixed.model_dim else list(WIDTHS)
        for dim in dims:
            depths = [fixed.num_layers] if fixed.num_layers else depths_for(dim)
            if fixed.model_dim is None and not self._divides(dim):
                continue
            for layers in depths:
                yield self._shape(layers, dim)

    def _divides(self, dim: int) -> bool:
        """Return whether a width can have the heads that params fix."""
        fixed = self.params.model
        return fits_heads(dim, fixed.num_heads or choose_heads(dim), fixed.num_kv_heads)

    def _nearest_width(self, dim: int) -> int:
        """Return a table's width, or the next one that can have the heads that params fix."""
        if self.params.model.num_heads is None or self._divides(dim):
            return dim
        return min(filter(self._divides, WIDTHS), key=lambda width: abs(width - dim), default=dim)

    def _shape(
        self, layers: int, dim: int, heads: int | None = None, context: int | None = None
    ) -> ModelConfig:
        fixed = self.params.model
        if heads is None or dim % (2 * heads):
            heads = choose_heads(dim)  # a tier's heads do not divide a width that params fix

        heads = fixed.num_heads or heads
        return build_shape(
            self.params,
            vocab_size=self.text.vocab_size,
            num_layers=layers,
            model_dim=dim,
            num_heads=heads,
            context_length=fixed.context_length or context or self._context(),
        )

    @property
    def _useful_tokens(self) -> float:
        """The tokens that training reads with gain, the text's own again and again."""
        return useful_epochs(self.text.num_train_bytes) * self.text.num_train_tokens

    def _context(self) -> int:
        speed = load_calibration().speed.efficiency * self.machine.usual_flops
        flops = speed * max(FLOOR_SECONDS, self._training_seconds())
        return guess_context_length(flops, self.text.num_train_tokens, self._useful_tokens)

    def _fixed(self, tier: Tier | None) -> Candidate:
        fixed = self.params.model
        shape = DEFAULT_SHAPE if tier is None else tier._asdict()
        context = fixed.context_length or int(shape["context_length"])

        if fixed.context_length is None:
            while context > 8 and context + 1 > min(
                self.text.num_train_tokens, self.text.num_validation_tokens * 8
            ):
                context //= 2

        model = self._shape(
            fixed.num_layers or int(shape["num_layers"]),
            fixed.model_dim or self._nearest_width(int(shape["model_dim"])),
            int(shape["num_heads"]),
            context,
        )

        return self._judge(model)

    def _training_seconds(self, model: ModelConfig | None = None) -> float:
        """Return the seconds left for the training loop; of `model` where its scoring speed is to
        count.
        """
        left = self.remaining() - self.closing.seconds
        if model is None:
            return left * (1 - EVALUATION_FRACTION / 2)
        return left - self.closing.scoring_margin * self._evaluation_seconds(model)

    def _evaluation_seconds(self, model: ModelConfig) -> float:
        """Return the seconds kept for the final score: all held-out text, or what the fraction
        allows.
        """
        speed = self._probe.score_speed(model)
        whole = self.text.num_validation_tokens / speed
        limit = EVALUATION_FRACTION * max(0.0, self.remaining())
        return min(whole, max(limit, 0.2))

    def _trainer(
        self,
        model: ModelConfig,
        *,
        is_compiled: bool,
        expected_tokens: float | None = None,
        max_steps: int | None = None,
    ) -> TrainerConfig:
        tokens = expected_tokens
        if tokens is None:
            speed = self._probe.speed_of(model, is_compiled=is_compiled)
            tokens = speed * max(FLOOR_SECONDS, self._training_seconds())

        compiled = self.timings.find_compiled(model) if is_compiled else None
        return choose_trainer(
            self.params,
            self.machine,
            model,
            expected_tokens=tokens,
            train_tokens=self.text.num_train_tokens,
            is_compiled=is_compiled,
            max_steps=max_steps,
            batch_tokens=compiled.batch_tokens if compiled is not None else None,
            way=self.timings.find_way(model.context_length),
        )

    def _settle(
        self,
        best: Candidate,
        others: list[Candidate],
        probe: Probe | None,
        tier: Tier | None = None,
    ) -> tuple[Plan, Probe]:
        """Return the plan of the shape chosen, and the figures it was made of."""
        params = self.params
        text = self.text
        figures = probe or self._probe
        is_compiled = best.is_compiled or params.training.compile == "on"
        max_steps = params.budget.max_steps or (tier.max_steps if tier else None)
        trainer = self._trainer(
            best.model, expected_tokens=best.tokens, is_compiled=is_compiled, max_steps=max_steps
        )

        self.reasons += explain_switches(trainer)
        tokens = best.tokens if max_steps is None else max_steps * trainer.batch_tokens
        epochs = tokens / max(1, text.num_train_tokens)
        prediction = self._predict(best.model, tokens)

        if is_repeated(epochs):
            self.reasons.append(
                f"the text is read {epochs:.1f} times: dropout {trainer.dropout:g}, weight decay "
                f"{trainer.weight_decay:g}, and the best validated weights are kept"
            )

        evaluation_seconds = self._evaluation_seconds(best.model)
        seconds = max(0.0, self._training_seconds(best.model))
        if best.is_cut:
            self.reasons.append(
                f"the text is small: read more than {epochs:.0f} times it would only be learnt by "
                "heart, so training "
                f"takes {best.training_seconds:.0f} of the {seconds:.0f} s that are there"
            )
            seconds = best.training_seconds

        validation_tokens = VALIDATION_FRACTION * seconds * figures.score_speed(best.model)
        plan = Plan(
            planner=params.budget.planner,
            model=best.model,
            trainer=trainer,
            num_parameters=count_parameters(best.model),
            expected_tokens=tokens,
            expected_epochs=epochs,
            tokens_per_second=best.tokens_per_second,
            matrix_flops_per_second=self.machine.flops_per_second,
            training_seconds=seconds,
            reserve_seconds=self.closing.seconds + self.closing.scoring_margin * evaluation_seconds,
            scoring_reserve_seconds=self.closing.scoring_margin * evaluation_seconds,
            validation_tokens=int(max(best.model.context_length, validation_tokens)),
            sample_tokens=0 if seconds < SAMPLE_FROM_SECONDS else SAMPLE_TOKENS,
            evaluation_seconds=evaluation_seconds,
            memory_bytes=plan_memory_bytes(best.model, trainer, keep_best=is_repeated(epochs)),
            predicted_bits_per_byte=prediction.bits_per_byte,
            predicted_low=prediction.low,
            predicted_high=prediction.high,
            keep_best=is_repeated(epochs),
            bytes_per_token=text.bytes_per_token,
            difficulty=text.difficulty,
            speed_correction=self.correction.speed,
            reasons=self.reasons,
            alternatives=list(list_runners_up(best, others)),
        )

        return plan, figures
