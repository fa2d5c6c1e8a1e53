"""The planner: probes a few shapes, predicts the bits per byte of every candidate, and takes the best.

Owns the order of the choice: time, candidates, speed, loss, rates. `planner: tiers` and `manual` fix the shape.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lightlm.budget.plan import Alternative, Plan, summarize_shape
from lightlm.budget.probe import Computer, MachineRate, Probe, TimedShape, time_shape
from lightlm.budget.scaling import (
    Prediction,
    choose_batch_tokens,
    choose_context_length,
    choose_learning_rates,
    choose_regularization,
    load_calibration,
    predict_loss,
)
from lightlm.budget.tiers import Tier, tier_of
from lightlm.errors import ParameterError
from lightlm.model.accounting import (
    count_matrix_parameters,
    count_parameters,
    flops_per_token,
    training_memory_bytes,
)
from lightlm.model.config import ModelConfig
from lightlm.params import Params
from lightlm.training.config import TrainerConfig

PROBE_FRACTION = 0.05
"""Of the budget; what probing may take at most."""

MEMORY_FRACTION = 0.8
"""Of the memory that is free; the rest is the system's and the other processes'."""

VALIDATION_FRACTION = 0.01
"""Of the training time; what one validation may take."""

EVALUATION_FRACTION = 0.15
"""Of the remaining time; the final score reads less text where all of it would take longer."""

EXPORT_SECONDS = 0.7
"""From the last step to the model's folder: one validation, the weights written and synced (3M parameters)."""

FLOOR_SECONDS = 3.0
"""Of training; below this the ultra-fast tier is trained instead, as a smoke test."""

DEFAULT_SHAPE = {"num_layers": 12, "model_dim": 768, "num_heads": 12, "context_length": 1024}
"""Of a manual configuration; DESIGN section 6."""

HEAD_DIM = 64
"""Faster and better than 32 at every width measured (METHODS)."""


@dataclass(frozen=True)
class TextFacts:
    """What the plan needs to know of the tokenized text."""

    vocab_size: int
    num_train_tokens: int
    num_train_bytes: int
    num_validation_tokens: int
    num_validation_bytes: int

    @property
    def bytes_a_token(self) -> float:
        """Bytes of raw text that a token stands for."""
        return self.num_train_bytes / max(1, self.num_train_tokens)


@dataclass(frozen=True)
class Candidate:
    """A shape with what is expected of it."""

    model: ModelConfig
    is_compiled: bool
    tokens_per_second: float
    training_seconds: float
    prediction: Prediction

    @property
    def tokens(self) -> int:
        """Tokens that fit into the training time."""
        return int(self.tokens_per_second * self.training_seconds)

    def summary(self) -> str:
        """Return the shape and what makes it differ, in a line."""
        return summarize_shape(self.model) + (", compiled" if self.is_compiled else "")


class Planner:
    """Makes one plan. `remaining()` gives the seconds to the deadline, of which `closing_seconds` follow the score."""

    def __init__(
        self,
        params: Params,
        text: TextFacts,
        machine: MachineRate,
        remaining: Callable[[], float],
        closing_seconds: float,
    ) -> None:
        self.params = params
        self.text = text
        self.machine = machine
        self.remaining = remaining
        self.closing_seconds = closing_seconds
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
            return self._settle(self._fixed(tier_of(0.0)), [], probe)
        if planner == "tiers":
            tier = tier_of(self.params.budget.hours)
            self.reasons.append(f"planner tiers: the {tier.name} tier of {self.params.budget.hours:g} h")
            return self._settle(self._fixed(tier), [], probe)
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
            f"of {len(ranked)} shapes, {best.model.num_layers} layers x {best.model.model_dim} dims balances what "
            f"the model can hold against the {best.tokens:,} tokens it can read in {best.training_seconds:.0f} s"
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
        compiled = [s for s in self.shapes if s.is_compiled and s.model == model]
        is_compiled = bool(compiled) and self._compiling_paid(compiled[0])
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
            for layers in depths:
                yield self._shape(layers, dim)

    def _shape(self, layers: int, dim: int, heads: int | None = None, context: int | None = None) -> ModelConfig:
        fixed = self.params.model
        heads = fixed.num_heads or heads or choose_heads(dim)
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
        return needed <= MEMORY_FRACTION * self.machine.memory_bytes

    def _training_seconds(self, model: ModelConfig | None = None) -> float:
        """Return the seconds left for the training loop; of `model` where its scoring speed is to count."""
        left = self.remaining() - self.closing_seconds - EXPORT_SECONDS
        if model is None:
            return left * (1 - EVALUATION_FRACTION / 2)
        return left - self._evaluation_seconds(model)

    def _evaluation_seconds(self, model: ModelConfig) -> float:
        """Return the seconds kept for the final score: all held-out text, or what the fraction allows."""
        speed = Probe(machine=self.machine, shapes=self.shapes).score_speed(model)
        whole = 1.15 * self.text.num_validation_tokens / speed
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

    def _try_compiling(self, computer: Computer, model: ModelConfig) -> None:
        """Time the favourite compiled, where the priors say that it can pay."""
        if self.params.training.compile == "off":
            return
        priors = load_calibration()["speed"]
        seconds = self._training_seconds()
        pays = (seconds - priors["compile_seconds"]) * priors["compile_speedup"] > 1.05 * seconds
        if self.params.training.compile == "auto" and not pays:
            self.reasons.append(
                f"not compiled: {seconds:.0f} s of training are too short to pay for about "
                f"{priors['compile_seconds']:.0f} s of it"
            )
            return
        self._time(computer, model, is_compiled=True)
        timed = self.shapes[-1]
        verdict = "kept" if self._compiling_paid(timed) else "not kept"
        self.reasons.append(
            f"compiled in {timed.first_seconds:.0f} s: {timed.tokens_per_second:,.0f} tokens/s; {verdict}"
        )

    def _compiling_paid(self, timed: TimedShape) -> bool:
        """Return whether a compiled shape, its compilation already paid, runs faster than the eager one."""
        eager = [s for s in self.shapes if not s.is_compiled and s.model == timed.model]
        return not eager or timed.step_seconds < 0.98 * eager[0].step_seconds

    def _trainer(
        self, model: ModelConfig, *, expected_tokens: float | None, is_compiled: bool, max_steps: int | None = None
    ) -> TrainerConfig:
        training = self.params.training
        tokens = expected_tokens
        if tokens is None:
            speed = Probe(machine=self.machine, shapes=self.shapes).speed_of(model, is_compiled=is_compiled)
            tokens = speed * max(FLOOR_SECONDS, self._training_seconds())
        batch_tokens = training.batch_tokens or choose_batch_tokens(tokens, model.context_length)
        sequences = max(1, batch_tokens // model.context_length)
        micro = min(training.micro_batch_size or self._micro_batch(model, sequences), sequences)
        while sequences % micro:
            micro -= 1
        rates = choose_learning_rates(sequences * model.context_length, model.model_dim, training.learning_rate_scale)
        epochs = tokens / max(1, self.text.num_train_tokens)
        regularization = choose_regularization(epochs)
        return TrainerConfig(
            optimizer=training.optimizer,
            seed=training.seed,
            batch_tokens=sequences * model.context_length,
            micro_batch_size=micro,
            matrix_learning_rate=rates.matrix,
            embedding_learning_rate=rates.embedding,
            head_learning_rate=rates.head,
            gain_learning_rate=rates.gain,
            weight_decay=regularization.weight_decay if training.weight_decay is None else training.weight_decay,
            dropout=regularization.dropout if training.dropout is None else training.dropout,
            warmup_fraction=training.warmup_fraction,
            cooldown_fraction=training.cooldown_fraction,
            gradient_clip_norm=training.gradient_clip_norm,
            dtype=self.machine.dtype,
            compile=is_compiled,
            attention=self._attention(model),
            device=self.machine.device,
            num_threads=self.machine.num_threads,
            max_steps=self.params.budget.max_steps or max_steps,
            num_validations=training.num_validations,
            num_checkpoints=training.num_checkpoints,
            sample_prompt=training.sample_prompt,
        )

    def _micro_batch(self, model: ModelConfig, sequences: int) -> int:
        """Return how many sequences of a batch fit into memory at once."""
        micro = sequences
        room = MEMORY_FRACTION * self.machine.memory_bytes
        while micro > 1 and training_memory_bytes(model, micro, self.params.training.optimizer) > room:
            micro = (micro + 1) // 2
        return micro

    def _attention(self, model: ModelConfig) -> str:
        if self.params.model.flash_attention:
            return "flash"
        # Plain products beat the flash kernel 3x in training at 128 tokens and 2x at 512 (bf16, EPYC, Nov 2026).
        return "matmul" if self.machine.device == "cpu" and model.context_length <= 512 else "sdpa"

    def _settle(self, best: Candidate, others: list[Candidate], probe: Probe | None) -> tuple[Plan, Probe]:
        params, text = self.params, self.text
        figures = probe or Probe(machine=self.machine, shapes=self.shapes)
        is_floor = (
            params.budget.planner != "manual"
            and (self._training_seconds() < FLOOR_SECONDS or tier_of(params.budget.hours).max_steps is not None)
            and not others
        )
        max_steps = tier_of(0.0).max_steps if is_floor else None
        is_compiled = best.is_compiled or params.training.compile == "on"
        trainer = self._trainer(best.model, expected_tokens=best.tokens, is_compiled=is_compiled, max_steps=max_steps)
        steps = trainer.max_steps
        tokens = best.tokens if steps is None else steps * trainer.batch_tokens
        epochs = tokens / max(1, text.num_train_tokens)
        prediction = best.prediction
        if steps is not None:
            seen = tokens * text.bytes_a_token
            prediction = predict_loss(count_matrix_parameters(best.model), seen, text.num_train_bytes)
        if epochs > 2:
            self.reasons.append(
                f"the text is read {epochs:.1f} times: dropout {trainer.dropout:g}, weight decay "
                f"{trainer.weight_decay:g}, and the best validated weights are kept"
            )
        evaluation_seconds = self._evaluation_seconds(best.model)
        seconds = max(0.0, self._training_seconds(best.model))
        score_speed = figures.score_speed(best.model)
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
            validation_tokens=int(max(best.model.context_length, VALIDATION_FRACTION * seconds * score_speed)),
            sample_tokens=0 if seconds < 10 else 48,
            evaluation_seconds=evaluation_seconds,
            memory_bytes=training_memory_bytes(best.model, trainer.micro_batch_size, trainer.optimizer),
            predicted_bits_per_byte=prediction.bits_per_byte,
            predicted_low=prediction.low,
            predicted_high=prediction.high,
            keep_best=epochs > 2,
            reasons=self.reasons,
            alternatives=list(_runners_up(best, others)),
        )
        return plan, figures


WIDTHS = tuple(range(64, 513, 64)) + tuple(range(640, 1025, 128)) + tuple(range(1280, 4097, 256))
"""Model dimensions that are considered: multiples of the head's."""


def depths_for(dim: int) -> list[int]:
    """Return the numbers of layers considered at a width: aspect ratios (dim / layers) of 24 to 128."""
    return [layers for layers in range(1, 65) if 24 <= dim / layers <= 128]


def choose_heads(dim: int) -> int:
    """Return the number of heads of a width: 64 dimensions a head, fewer where that does not divide."""
    for head_dim in (HEAD_DIM, 128, 32, 16, 8, 4, 2):
        if dim % head_dim == 0:
            return dim // head_dim
    return 1


def choose_ffn_dim(dim: int) -> int:
    """Return 8/3 of the width, rounded to 64: three matrices cost what two of 4x would."""
    return max(64, round(dim * 8 / 3 / 64) * 64)


def build_shape(
    params: Params, *, vocab_size: int, num_layers: int, model_dim: int, num_heads: int, context_length: int
) -> ModelConfig:
    """Return the model config of a shape, with what params fix.

    Raises:
        ParameterError: heads that do not divide the width.
    """
    fixed = params.model
    if model_dim % num_heads or (model_dim // num_heads) % 2:
        raise ParameterError(
            f"model.model_dim {model_dim} does not divide into {num_heads} heads of an even number of dimensions; "
            "give model.num_heads a divisor, or model.model_dim a multiple"
        )
    num_kv_heads = fixed.num_kv_heads or num_heads
    if num_heads % num_kv_heads:
        raise ParameterError(
            f"model.num_kv_heads {num_kv_heads} does not divide num_heads {num_heads}; give one that does"
        )
    ffn_dim = fixed.ffn_dim or choose_ffn_dim(model_dim)
    experts = fixed.mixture_of_experts
    active = min(fixed.num_active_experts, fixed.num_experts)
    return ModelConfig(
        vocab_size=vocab_size,
        num_layers=num_layers,
        model_dim=model_dim,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=model_dim // num_heads,
        ffn_dim=ffn_dim,
        context_length=context_length,
        tie_embeddings=bool(fixed.tie_embeddings),
        num_experts=fixed.num_experts if experts else 0,
        num_active_experts=active if experts else 0,
        # Active experts together cost what the dense feed-forward would.
        expert_ffn_dim=max(8, ffn_dim // active) if experts else 0,
    )


def _runners_up(best: Candidate, others: list[Candidate]) -> Iterator[Alternative]:
    """Yield the best two of other widths or depths that differ enough to be worth a look."""
    shown = [best.model]
    for other in others:
        cost = flops_per_token(other.model)
        if any(abs(math.log(cost / flops_per_token(model))) < 0.2 for model in shown):
            continue
        shown.append(other.model)
        yield Alternative(
            summary=f"{other.summary()}, {other.tokens:,} tokens",
            predicted_bits_per_byte=other.prediction.bits_per_byte,
        )
        if len(shown) == 3:
            return
