"""The planner: probes a few shapes, predicts the bits per byte of every candidate, and takes the best.

Owns the order of the choice: time, candidates, speed, loss, rates. `planner: tiers` and `manual` fix the shape.
"""

from collections.abc import Callable, Iterator

from lightlm.budget.candidate import Candidate, TextFacts, list_runners_up
from lightlm.budget.compiled import CompiledShapes
from lightlm.budget.plan import Plan, count
from lightlm.budget.probe import Computer, MachineRate, Probe, TimedShape, time_shape
from lightlm.budget.recipe import choose_trainer, usable_memory
from lightlm.budget.scaling import (
    choose_context_length,
    load_calibration,
    predict_loss,
)
from lightlm.budget.shapes import DEFAULT_SHAPE, WIDTHS, build_shape, choose_heads, depths_for, has_same_layers
from lightlm.budget.tiers import Tier, tier_of
from lightlm.errors import ParameterError, WorkerError
from lightlm.model.accounting import (
    count_matrix_parameters,
    count_parameters,
    training_memory_bytes,
)
from lightlm.model.config import ModelConfig
from lightlm.params import Params
from lightlm.training.config import TrainerConfig

PROBE_FRACTION = 0.05
"""Of the budget; what probing may take at most."""

VALIDATION_FRACTION = 0.004
"""Of the training time; what one validation may take. Eight of them are 3 % of a run."""

SAMPLE_FROM_SECONDS = 10.0
"""Of training; a shorter run writes no samples on the way."""

SAMPLE_TOKENS = 48
"""Written at each validation; about 0.1 s on a CPU."""

EVALUATION_FRACTION = 0.15
"""Of the remaining time; the final score reads less text where all of it would take longer."""

SUSPICIOUS_SHARE = 0.12
"""Of the matrix rate: a step that reaches less runs on a busy machine (a quiet one gives 0.2 to 0.5)."""

EXPORT_SECONDS = 0.7
"""From the last step to the model's folder: one validation, the weights written and synced (3M parameters)."""

SCORING_MARGIN = 1.5
"""Of the expected time for the whole held-out text; scores of the whole text alone compare from run to run."""

FLOOR_SECONDS = 3.0
"""Of training; below this the ultra-fast tier is trained instead, as a smoke test."""


class Planner:
    """Makes one plan. `remaining()` gives the seconds to the deadline, of which `closing_seconds` follow the score."""

    def __init__(
        self,
        params: Params,
        text: TextFacts,
        machine: MachineRate,
        remaining: Callable[[], float],
        closing_seconds: float,
        compiled: CompiledShapes | None = None,
    ) -> None:
        self.params = params
        self.text = text
        self.machine = machine
        self.remaining = remaining
        self.closing_seconds = closing_seconds
        self.compiled = compiled
        self.reasons: list[str] = []
        self.shapes: list[TimedShape] = []

    def plan(self, computer: Computer | None, probe: Probe | None = None) -> tuple[Plan, Probe]:
        """Return the plan and the figures it was made of.

        With `probe` its figures are taken; otherwise `computer` measures.

        Raises:
            ParameterError: no shape satisfies what params fix, or none fits into memory.
        """
        planner = self.params.budget.planner
        if planner == "measured" and self.params.budget.max_steps is None and self._training_seconds() < FLOOR_SECONDS:
            self.reasons.append(
                f"{max(0.0, self._training_seconds()):.1f} s are left for training, less than {FLOOR_SECONDS:.0f} s: "
                "the ultra-fast tier is trained, which shows that all works and is no useful model"
            )
            return self._settle(self._fixed(tier_of(0.0)), [], probe, tier_of(0.0))
        if planner == "tiers":
            tier = tier_of(self.params.budget.hours)
            self.reasons.append(f"planner tiers: the {tier.name} tier of {self.params.budget.hours:g} h")
            return self._settle(self._fixed(tier), [], probe, tier)
        if planner == "manual":
            self.reasons.append("planner manual: the shape is the one given")
            return self._settle(self._fixed(None), [], probe)
        return self._measure(computer, probe)

    def _measure(self, computer: Computer | None, probe: Probe | None) -> tuple[Plan, Probe]:
        if probe is not None:
            self.shapes = list(probe.shapes)
        first = self._rank()
        if probe is None and computer is not None:
            for model in self._shapes_to_time([candidate.model for candidate in first]):
                self._time(computer, model, is_compiled=False)
                if len(self.shapes) == 1:
                    self._try_one_thread(computer)
            self._try_compiling(computer, self._rank()[0].model)
        ranked = self._rank()
        best = ranked[0]
        if self.shapes:
            timed = ", ".join(
                f"{s.model.num_layers} x {s.model.model_dim}{' compiled' if s.is_compiled else ''}: "
                f"{s.tokens_per_second:,.0f} tokens/s"
                for s in self.shapes
            )
            self.reasons.append(f"timed here: {timed}")
        self.reasons.append(
            f"of {len(ranked)} shapes, {count(best.model.num_layers, 'layer')} x {best.model.model_dim} dims balances "
            f"what the model can hold against the {best.tokens:,} tokens it can read in {best.training_seconds:.0f} s"
        )
        return self._settle(best, ranked[1:], probe)

    def _rank(self) -> list[Candidate]:
        candidates = [self._judge(model) for model in self._shapes()]
        fitting = [c for c in candidates if self._fits(c.model)]
        if not fitting:
            raise ParameterError(
                "no shape satisfies the model section and fits into "
                f"{self.machine.memory_bytes / 1e9:.1f} GB; fix fewer of model.* or give a smaller context_length"
            )
        return sorted(fitting, key=lambda c: c.prediction.bits_per_byte)

    def _judge(self, model: ModelConfig) -> Candidate:
        compiled = self._find_compiled(model)
        is_compiled = compiled is not None and self._compiling_paid(compiled)
        probe = Probe(machine=self.machine, shapes=self.shapes)
        speed = probe.speed_of(model, is_compiled=is_compiled)
        seconds = max(FLOOR_SECONDS, self._training_seconds(model))
        seen = speed * seconds * self.text.bytes_a_token
        prediction = predict_loss(count_matrix_parameters(model), seen, self.text.num_train_bytes)
        return Candidate(model, is_compiled, speed, seconds, prediction)

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
        heads = fixed.num_heads or choose_heads(dim)
        return dim % (2 * heads) == 0 and heads % (fixed.num_kv_heads or heads) == 0

    def _shape(self, layers: int, dim: int, heads: int | None = None, context: int | None = None) -> ModelConfig:
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

    def _context(self) -> int:
        speed = load_calibration()["speed"]["efficiency"] * self.machine.flops_per_second
        tokens = speed * max(FLOOR_SECONDS, self._training_seconds()) / 20e6
        return choose_context_length(tokens, self.text.num_train_tokens)

    def _fixed(self, tier: Tier | None) -> Candidate:
        fixed = self.params.model
        shape = DEFAULT_SHAPE if tier is None else tier._asdict()
        context = fixed.context_length or int(shape["context_length"])
        if fixed.context_length is None:
            while context > 8 and context + 1 > min(self.text.num_train_tokens, self.text.num_validation_tokens * 8):
                context //= 2
        model = self._shape(
            fixed.num_layers or int(shape["num_layers"]),
            fixed.model_dim or int(shape["model_dim"]),
            int(shape["num_heads"]),
            context,
        )
        return self._judge(model)

    def _fits(self, model: ModelConfig) -> bool:
        needed = training_memory_bytes(model, 1, self.params.training.optimizer)
        return needed <= usable_memory(self.machine)

    def _training_seconds(self, model: ModelConfig | None = None) -> float:
        """Return the seconds left for the training loop; of `model` where its scoring speed is to count."""
        left = self.remaining() - self.closing_seconds - EXPORT_SECONDS
        if model is None:
            return left * (1 - EVALUATION_FRACTION / 2)
        return left - self._evaluation_seconds(model)

    def _evaluation_seconds(self, model: ModelConfig) -> float:
        """Return the seconds kept for the final score: all held-out text, or what the fraction allows."""
        speed = Probe(machine=self.machine, shapes=self.shapes).score_speed(model)
        whole = SCORING_MARGIN * self.text.num_validation_tokens / speed
        limit = EVALUATION_FRACTION * max(0.0, self.remaining())
        return min(whole, max(limit, 0.2))

    def _shapes_to_time(self, ranked: list[ModelConfig]) -> list[ModelConfig]:
        """Return the favourite of the priors, and the best one narrower and one wider."""
        favourite = ranked[0]
        narrower = next((m for m in ranked if m.model_dim <= favourite.model_dim * 0.75), None)
        wider = next((m for m in ranked if m.model_dim >= favourite.model_dim * 1.33), None)
        return [m for m in (favourite, narrower, wider) if m is not None]

    def _time(self, computer: Computer, model: ModelConfig, *, is_compiled: bool) -> None:
        trainer = self._trainer(model, expected_tokens=None, is_compiled=is_compiled)
        budget = PROBE_FRACTION * self.params.budget.hours * 3600
        self.shapes.append(time_shape(computer, model, trainer, max_seconds=min(1.5, budget / 6)))

    def _try_one_thread(self, computer: Computer) -> None:
        """Take one thread where several get in each other's way: a busy core makes all of them wait at each barrier."""
        timed = self.shapes[0]
        share = timed.achieved_flops / self.machine.flops_per_second
        if self.machine.device != "cpu" or self.machine.num_threads == 1 or share >= SUSPICIOUS_SHARE:
            return
        several, self.machine = self.machine, self.machine.model_copy(update={"num_threads": 1})
        self._time(computer, timed.model, is_compiled=False)
        alone = self.shapes.pop()
        if alone.step_seconds < timed.step_seconds:
            self.shapes[0] = alone
            self.reasons.append(
                f"one thread instead of {several.num_threads}: {alone.tokens_per_second:,.0f} tokens/s against "
                f"{timed.tokens_per_second:,.0f}; the cores are busy, or the shape is too small to share"
            )
        else:
            self.machine = several

    def _try_compiling(self, computer: Computer, model: ModelConfig) -> None:
        """Time the favourite compiled, where the priors say that it can pay."""
        if self.params.training.compile == "off":
            return
        priors = load_calibration()["speed"]
        seconds = self._training_seconds()
        trainer = self._trainer(model, expected_tokens=None, is_compiled=True)
        is_known = self.compiled is not None and self.compiled.knows(model, trainer)
        cost = priors["warm_compile_seconds"] if is_known else priors["compile_seconds"]
        pays = (seconds - cost) * priors["compile_speedup"] > 1.05 * seconds
        if self.params.training.compile == "auto" and not pays:
            self.reasons.append(
                f"not compiled: {seconds:.0f} s of training are too short to pay for about {cost:.0f} s of it"
            )
            return
        try:
            self._time(computer, model, is_compiled=True)
        except WorkerError as error:
            # No C++ compiler, most often. It is an option, so the run goes on without it unless it was demanded.
            if self.params.training.compile == "on":
                raise
            self.reasons.append(f"not compiled: compiling failed ({error})")
            return
        timed = self.shapes[-1]
        if self.compiled is not None:
            self.compiled.record(model, trainer)
        verdict = "kept" if self._compiling_paid(timed) else "not kept"
        self.reasons.append(
            f"compiled in {timed.first_seconds:.0f} s: {timed.tokens_per_second:,.0f} tokens/s; {verdict}"
        )

    def _find_compiled(self, model: ModelConfig) -> TimedShape | None:
        """Return the compiled shape that serves `model`: layers are compiled, not models, so of any depth."""
        return next((s for s in self.shapes if s.is_compiled and has_same_layers(s.model, model)), None)

    def _compiling_paid(self, timed: TimedShape) -> bool:
        """Return whether a compiled shape, its compilation already paid, runs faster than the eager one."""
        eager = [s for s in self.shapes if not s.is_compiled and s.model == timed.model]
        return not eager or timed.step_seconds < 0.98 * eager[0].step_seconds

    def _trainer(
        self, model: ModelConfig, *, expected_tokens: float | None, is_compiled: bool, max_steps: int | None = None
    ) -> TrainerConfig:
        tokens = expected_tokens
        if tokens is None:
            speed = Probe(machine=self.machine, shapes=self.shapes).speed_of(model, is_compiled=is_compiled)
            tokens = speed * max(FLOOR_SECONDS, self._training_seconds())
        compiled = self._find_compiled(model) if is_compiled else None
        return choose_trainer(
            self.params,
            self.machine,
            model,
            expected_tokens=tokens,
            train_tokens=self.text.num_train_tokens,
            is_compiled=is_compiled,
            max_steps=max_steps,
            batch_tokens=compiled.batch_tokens if compiled is not None else None,
        )

    def _settle(
        self, best: Candidate, others: list[Candidate], probe: Probe | None, tier: Tier | None = None
    ) -> tuple[Plan, Probe]:
        """Return the plan of the shape chosen, and the figures it was made of."""
        params, text = self.params, self.text
        figures = probe or Probe(machine=self.machine, shapes=self.shapes)
        is_compiled = best.is_compiled or params.training.compile == "on"
        max_steps = params.budget.max_steps or (tier.max_steps if tier else None)
        trainer = self._trainer(best.model, expected_tokens=best.tokens, is_compiled=is_compiled, max_steps=max_steps)
        tokens = best.tokens if max_steps is None else max_steps * trainer.batch_tokens
        epochs = tokens / max(1, text.num_train_tokens)
        prediction = predict_loss(
            count_matrix_parameters(best.model), tokens * text.bytes_a_token, text.num_train_bytes
        )
        if epochs > 2:
            self.reasons.append(
                f"the text is read {epochs:.1f} times: dropout {trainer.dropout:g}, weight decay "
                f"{trainer.weight_decay:g}, and the best validated weights are kept"
            )
        evaluation_seconds = self._evaluation_seconds(best.model)
        seconds = max(0.0, self._training_seconds(best.model))
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
            reserve_seconds=self.closing_seconds + EXPORT_SECONDS + evaluation_seconds,
            validation_tokens=int(max(best.model.context_length, validation_tokens)),
            sample_tokens=0 if seconds < SAMPLE_FROM_SECONDS else SAMPLE_TOKENS,
            evaluation_seconds=evaluation_seconds,
            memory_bytes=training_memory_bytes(best.model, trainer.micro_batch_size, trainer.optimizer),
            predicted_bits_per_byte=prediction.bits_per_byte,
            predicted_low=prediction.low,
            predicted_high=prediction.high,
            keep_best=epochs > 2,
            reasons=self.reasons,
            alternatives=list(list_runners_up(best, others)),
        )
        return plan, figures
