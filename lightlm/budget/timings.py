"""The shapes that were timed for a plan: which ones, on how many threads, compiled or not.

Owns what is measured and what a measurement decides; what is chosen in the end is the planner's.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from lightlm.budget.calibration import load_calibration
from lightlm.budget.compiled import CompiledShapes
from lightlm.budget.probe import MATRIX_RATE_SECONDS, Computer, MachineRate, TimedShape, time_shape
from lightlm.budget.shapes import has_same_layers
from lightlm.errors import WorkerError
from lightlm.model.config import ModelConfig
from lightlm.params import Params
from lightlm.training.config import TrainerConfig

PROBE_FRACTION = 0.05
"""Of the budget; what the matrix rate and the timing of shapes may take. The favourite shape is
timed in any case.
"""

MOST_SECONDS = 1.5
"""Of steps of one shape after its first; more does not change the median."""

WORTH_CHANGING = 0.97
"""Of the usual way's step; what does not save as much is noise, and the rule stays."""

MOST_MATMUL_CONTEXT = 1024
"""Tokens; plain products keep all scores of a sequence, (heads, T, T), for the way back."""

SUSPICIOUS_SHARE = 0.12
"""Of the usual rate: a step that reaches less runs on a busy machine (a quiet one gives 0.2 to
0.5).
"""


DISTURBED_SHARE = 0.6
"""Of the other shapes' rate: one that reaches less was timed in bad company. Width alone makes it
0.75 at half.
"""


class TrainerChooser(Protocol):
    """Who knows how a shape would be trained: the planner."""

    def __call__(self, model: ModelConfig, *, is_compiled: bool) -> TrainerConfig:
        """Return the trainer's config of a shape."""
        ...


class Timings:
    """Timed shapes of one plan. What is decided on the way is told to `reasons`."""

    def __init__(
        self,
        params: Params,
        machine: MachineRate,
        reasons: list[str],
        compiled: CompiledShapes | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        probed_seconds: float = 2 * MATRIX_RATE_SECONDS,
    ) -> None:
        self.params = params
        self.machine = machine
        self.reasons = reasons
        self.compiled = compiled
        self.shapes: list[TimedShape] = []
        self._clock = clock
        self._left = PROBE_FRACTION * params.budget.hours * 3600 - probed_seconds
        self._last_seconds = 0.0

    def time_around(
        self, ranked: list[ModelConfig], computer: Computer, choose: TrainerChooser
    ) -> None:
        """Time the favourite of the priors, and, in the time for it, the best shape narrower and
        the best one wider.
        """
        favourite = ranked[0]
        narrower = next((m for m in ranked if m.model_dim <= favourite.model_dim * 0.75), None)
        wider = next((m for m in ranked if m.model_dim >= favourite.model_dim * 1.33), None)
        for model in (m for m in (favourite, narrower, wider) if m is not None):
            if self.shapes and not self._has_time:
                return
            self.shapes.append(self._time(computer, model, choose(model, is_compiled=False)))
            if len(self.shapes) == 1:
                self._try_one_thread(computer, choose)
        self._time_first_again(computer, choose)

    def try_other_ways(self, computer: Computer, choose: TrainerChooser) -> None:
        """Time the first shape with the other attention kernel and with half the micro-batch, in
        the time for it.
        """
        model = self.shapes[0].model
        for change in self._other_ways(model, choose(model, is_compiled=False)):
            if not self._has_time:
                return
            self.shapes.append(
                self._time(
                    computer, model, choose(model, is_compiled=False).model_copy(update=change)
                )
            )

        way = self.find_way(model.context_length)
        if way is not None:
            self.reasons.append(
                f"{way.attention} attention, {way.micro_batch_size} sequences at once: "
                f"{way.tokens_per_second:,.0f} "
                f"tokens/s instead of {self.shapes[0].tokens_per_second:,.0f}"
            )

    def find_way(self, context_length: int) -> TimedShape | None:
        """Return the fastest timing of a shape that was timed in several ways; None where the usual
        one is as good.
        """
        eager = [
            s for s in self.shapes if not s.is_compiled and s.model.context_length == context_length
        ]
        same = [s for s in eager if s.attention is not None and s.model == eager[0].model]
        if not same:
            return None
        fastest = min(same, key=lambda s: s.step_seconds)
        return fastest if fastest.step_seconds < WORTH_CHANGING * same[0].step_seconds else None

    def try_compiling(
        self,
        model: ModelConfig,
        computer: Computer,
        choose: TrainerChooser,
        training_seconds: float,
    ) -> None:
        """Time the favourite compiled, where the priors say that it can pay."""
        wanted = self.params.training.compile
        if wanted == "off":
            return

        trainer = choose(model, is_compiled=True)
        if wanted == "auto" and not self._can_pay(model, trainer, training_seconds):
            return

        try:
            timed = self._time(computer, model, trainer)
        except WorkerError as error:
            # No C++ compiler, most often. It is an option, so the run goes on without it unless it
            # was demanded.
            if wanted == "on":
                raise
            self.reasons.append(f"not compiled: compiling failed ({error})")
            return

        self.shapes.append(timed)
        if self.compiled is not None:
            self.compiled.record(model, trainer)

        verdict = "kept" if self.prefers_compiled(model) else "not kept"
        self.reasons.append(
            f"compiled in {timed.first_seconds:.0f} s: {timed.tokens_per_second:,.0f} tokens/s; "
            f"{verdict}"
        )

    @property
    def compile_seconds(self) -> float:
        """Seconds that compiling took, of the time for timing."""
        return sum(shape.first_seconds for shape in self.shapes if shape.is_compiled)

    def find_compiled(self, model: ModelConfig) -> TimedShape | None:
        """Return the compiled shape that serves `model`: layers are compiled, not models, so of any
        depth.
        """
        return next(
            (s for s in self.shapes if s.is_compiled and has_same_layers(s.model, model)), None
        )

    def prefers_compiled(self, model: ModelConfig) -> bool:
        """Return whether a compiled shape serves `model`, and faster than the eager one."""
        timed = self.find_compiled(model)
        if timed is None:
            return False
        if self.params.training.compile == "on":
            return True
        eager = [
            s.step_seconds for s in self.shapes if not s.is_compiled and s.model == timed.model
        ]
        return not eager or timed.step_seconds < 0.98 * min(eager)

    def summary(self) -> str:
        """Return every timed shape with its speed, in a line."""
        return ", ".join(
            f"{s.model.num_layers} x {s.model.model_dim}{' compiled' if s.is_compiled else ''}: "
            f"{s.tokens_per_second:,.0f} tokens/s"
            for s in self.shapes
        )

    def _time(self, computer: Computer, model: ModelConfig, trainer: TrainerConfig) -> TimedShape:
        if trainer.sharding == "fsdp":
            # One device times, which does not hold all layers: a part of the depth has the same
            # speed an operation.
            share = max(1, model.num_layers // (trainer.num_devices * trainer.num_nodes))
            model = model.model_copy(update={"num_layers": share})
            trainer = trainer.model_copy(update={"sharding": "off"})

        started = self._clock()
        seconds = min(MOST_SECONDS, PROBE_FRACTION * self.params.budget.hours * 3600 / 6)
        timed = time_shape(computer, model, trainer, max_seconds=seconds)
        self._last_seconds = (
            self._clock() - started - (timed.first_seconds if trainer.compile else 0.0)
        )

        self._left -= self._last_seconds
        return timed

    @property
    def _has_time(self) -> bool:
        """Whether one more shape can be timed, as long as the last one took; and the favourite
        compiled after it.
        """
        return self._left >= self._last_seconds * (2 if self._may_compile else 1)

    @property
    def _may_compile(self) -> bool:
        """Whether so much time can pay for compiling, the first time."""
        cost = load_calibration().speed.compile_seconds
        return (
            self.params.training.compile != "off"
            and _compiled_gain(self.params.budget.hours * 3600, cost) > 1
        )

    def _other_ways(self, model: ModelConfig, trainer: TrainerConfig) -> Iterator[dict[str, Any]]:
        """Yield what of a trainer's config could be faster; on a GPU the kernel is
        torch's choice.
        """
        is_free = trainer.device == "cpu" and not self.params.model.flash_attention
        if is_free and trainer.attention == "matmul":
            yield {"attention": "sdpa"}
        elif is_free and model.context_length <= MOST_MATMUL_CONTEXT:
            yield {"attention": "matmul"}
        if self.params.training.micro_batch_size is None and trainer.micro_batch_size % 2 == 0:
            yield {"micro_batch_size": trainer.micro_batch_size // 2}

    def _can_pay(self, model: ModelConfig, trainer: TrainerConfig, seconds: float) -> bool:
        """Return whether `seconds` of training, less the compilation, would be worth
        more compiled.
        """
        rule = load_calibration().speed
        is_known = self.compiled is not None and self.compiled.knows(model, trainer)
        cost = rule.warm_compile_seconds if is_known else rule.compile_seconds
        pays = _compiled_gain(seconds, cost) > rule.least_compile_gain
        if not pays:
            self.reasons.append(
                f"not compiled: {seconds:.0f} s of training are too short to pay for about "
                f"{cost:.0f} s of it"
            )
        return pays

    def _time_first_again(self, computer: Computer, choose: TrainerChooser) -> None:
        """Time the first shape once more where the others say that it was disturbed: MLflow starts
        beside it.
        """
        first = self.shapes[0]
        others = self.shapes[1:]
        best = max((shape.achieved_flops for shape in others), default=0.0)
        if first.achieved_flops >= DISTURBED_SHARE * best or not self._has_time:
            return
        again = self._time(computer, first.model, choose(first.model, is_compiled=False))
        self.shapes[0] = min(first, again, key=lambda shape: shape.step_seconds)

    def _try_one_thread(self, computer: Computer, choose: TrainerChooser) -> None:
        """Take one thread where several get in each other's way: a busy core makes all of them wait
        at each barrier.
        """
        timed = self.shapes[0]
        share = timed.achieved_flops / self.machine.usual_flops
        if (
            self.machine.device != "cpu"
            or self.machine.num_threads == 1
            or share >= SUSPICIOUS_SHARE
        ):
            return

        several = self.machine
        self.machine = self.machine.model_copy(update={"num_threads": 1})
        alone = self._time(computer, timed.model, choose(timed.model, is_compiled=False))

        if alone.step_seconds < timed.step_seconds:
            self.shapes[0] = alone
            self.reasons.append(
                f"one thread instead of {several.num_threads}: {alone.tokens_per_second:,.0f} "
                "tokens/s against "
                f"{timed.tokens_per_second:,.0f}; the cores are busy, or the shape is too small "
                "to share"
            )
        else:
            self.machine = several


def _compiled_gain(seconds: float, cost: float) -> float:
    """Return what compiling multiplies the steps of `seconds` by, as priors have it, where `cost`
    of them go to it.
    """
    return (seconds - cost) * load_calibration().speed.compile_speedup / max(seconds, 1e-9)
