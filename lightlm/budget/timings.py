"""The probe: a few shapes timed with real steps, on how many threads, with which kernel, compiled
or not.

`probe_shapes` measures and returns a value; the planner chooses from it.
"""

import math
import time
from collections.abc import Callable, Iterator

from lightlm.budget.calibration import load_calibration
from lightlm.budget.candidate import Candidate, TextFacts
from lightlm.budget.compiled import CompiledShapes
from lightlm.budget.history import NO_CORRECTION, Correction
from lightlm.budget.probe import (
    MATRIX_RATE_SECONDS,
    Computer,
    MachineRate,
    Probe,
    TimedShape,
    time_shape,
)
from lightlm.budget.ranking import FLOOR_SECONDS, Ranking, TimeLeft
from lightlm.errors import WorkerError
from lightlm.json_object import JsonObject
from lightlm.model.config import ModelConfig
from lightlm.params import Params
from lightlm.quantities import count
from lightlm.store.lock import ignore
from lightlm.training.config import TrainerConfig

PROBE_FRACTION = 0.05
"""Fraction of the budget that measuring may take; the favorite is timed in any case."""

MOST_SECONDS = 1.5
"""Seconds of steps of one shape after its first; more does not change the median."""

MOST_PROBE_SECONDS = 40.0
"""Seconds that measuring may take in all, however long the budget is; more changes no plan."""

LONG_SECONDS = 4.0
"""Seconds of the few steps of a timing from which parts of a step are timed instead."""

LEAST_LONG_SECONDS = 0.5
"""Seconds that the same may be where next to no time is left for timings."""

WHOLE_STEPS = 4
"""Steps that a timing takes at least: the first, two warm ones, and one that is measured."""

PARTS_PASSES = 6
"""Passes over two layers that a timing by parts takes, updates included."""

COMPILE_MARGIN = 1.6
"""Factor on the usual seconds of compiling that have to be left: it varies from 20 to 80."""

TIMINGS_IN_FRACTION = 6
"""Timings that PROBE_FRACTION has to suffice for: three shapes, two variants, one compiled."""

NARROWER = 0.75
WIDER = 1.33
"""Factors on the favorite's width from which two other shapes are timed. Assumption."""

MOST_MATMUL_CONTEXT = 1024
"""Tokens up to which plain products are tried: they keep all scores, (heads, T, T)."""

SUSPICIOUS_SHARE = 0.12
"""Fraction of the usual rate below which a step ran on a busy machine (a quiet one: 0.2 to 0.5)."""

DISTURBED_SHARE = 0.6
"""Fraction of the other shapes' rate below which a timing was disturbed; width alone: 0.75."""


def probe_shapes(
    params: Params,
    machine: MachineRate,
    text: TextFacts,
    worker: Computer,
    time_left: Callable[[], TimeLeft],
    *,
    compiled: CompiledShapes | None = None,
    correction: Correction = NO_CORRECTION,
    probed_seconds: float = 2 * MATRIX_RATE_SECONDS,
    most_seconds: float = math.inf,
    report: Callable[[str], None] = ignore,
) -> Probe:
    """Return the figures of this machine: shapes near the best guess, timed by the worker.

    `probed_seconds` of the time for measuring are spent already; `most_seconds` are left for all
    timings, compilation included, if that is less. Nothing is timed where the shape is fixed or the
    time too short. `report` gets a line about each timing.

    Raises:
        ParameterError: no shape satisfies what params fix, or none fits into memory.
        WorkerError: the worker failed to train a shape.
    """
    timings = Timings(
        params,
        text,
        worker,
        time_left,
        Probe(machine=machine, shapes=(), correction=correction),
        compiled=compiled,
        probed_seconds=probed_seconds,
        most_seconds=most_seconds,
        report=report,
    )

    ranking = timings.ranking
    if params.budget.planner == "measured" and not ranking.is_shorter_than(FLOOR_SECONDS):
        timings.time_around([candidate.model for candidate in ranking.rank()])
        timings.try_variants()
        timings.try_compiling(timings.ranking.rank()[0])

    return timings.probe


class Timings:
    """The timings of one probe, in the time for them; `probe` is what they found so far."""

    def __init__(
        self,
        params: Params,
        text: TextFacts,
        worker: Computer,
        time_left: Callable[[], TimeLeft],
        probe: Probe,
        *,
        compiled: CompiledShapes | None = None,
        probed_seconds: float = 0.0,
        most_seconds: float = math.inf,
        report: Callable[[str], None] = ignore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.probe = probe
        self._params = params
        self._text = text
        self._worker = worker
        self._time_left = time_left
        self._compiled = compiled
        self._clock = clock
        self._report = report
        self._ends_at = clock() + most_seconds
        self._long_seconds = min(LONG_SECONDS, max(LEAST_LONG_SECONDS, most_seconds / 3))
        share = PROBE_FRACTION * params.budget.hours * 3600 - probed_seconds
        self._left = min(share, MOST_PROBE_SECONDS, most_seconds)
        self._last_seconds = 0.0

    @property
    def ranking(self) -> Ranking:
        """The shapes as they are judged by what was timed so far and by the time left now."""
        return Ranking(self._params, self._text, self.probe, self._time_left())

    def choose(self, model: ModelConfig, *, is_compiled: bool = False) -> TrainerConfig:
        """Return how a shape would be trained by what was timed so far."""
        return self.ranking.choose_trainer(model, is_compiled=is_compiled)

    def time_around(self, ranked: list[ModelConfig]) -> None:
        """Time the favorite of the priors and, if there is time, a narrower and a wider shape."""
        favorite = ranked[0]
        dim = favorite.model_dim
        narrower = next((model for model in ranked if model.model_dim <= dim * NARROWER), None)
        wider = next((model for model in ranked if model.model_dim >= dim * WIDER), None)

        for model in (model for model in (favorite, narrower, wider) if model is not None):
            if self.probe.shapes and not self._has_time:
                return
            self._add(self._time(model, self.choose(model)))
            if len(self.probe.shapes) == 1:
                self._try_one_thread()

        self._time_first_again()

    def try_variants(self) -> None:
        """Time the first shape with the other kernel and with half the micro-batch."""
        first = self.probe.shapes[0]
        for change in self._list_variants(first.model, self.choose(first.model)):
            if not self._has_time:
                return
            trainer = self.choose(first.model).model_copy(update=change)
            self._add(self._time(first.model, trainer))

        variant = self.probe.find_variant(first.model.context_length)
        if variant is not None:
            self._note(
                f"{variant.attention} attention, {variant.micro_batch_size} sequences at once: "
                f"{variant.tokens_per_second:,.0f} "
                f"tokens/s instead of {self.probe.shapes[0].tokens_per_second:,.0f}"
            )

    def try_compiling(self, favorite: Candidate) -> None:
        """Time the favorite compiled, if the priors say that it can pay."""
        wanted = self._params.training.compile
        if wanted == "off":
            return

        model = favorite.model
        trainer = self.choose(model, is_compiled=True)
        if wanted == "auto" and not self._can_pay(model, trainer, favorite.training_seconds):
            return
        if not self._may_still_compile(model, trainer):
            return

        try:
            timed = self._time(model, trainer)
        except WorkerError as error:
            # No C++ compiler, most often. Compiling is an option, so the run goes on without it
            # unless it was demanded.
            if wanted == "on":
                raise
            self._note(f"not compiled: compiling failed ({error})")
            return

        self._add(timed)
        if self._compiled is not None:
            self._compiled.record(model, trainer)

        is_kept = self.probe.prefers_compiled(model, is_demanded=wanted == "on")
        self._note(
            f"compiled in {timed.first_seconds:.0f} s: {timed.tokens_per_second:,.0f} tokens/s; "
            f"{'kept' if is_kept else 'not kept'}"
        )

    def _note(self, sentence: str) -> None:
        self.probe = self.probe.model_copy(update={"notes": (*self.probe.notes, sentence)})

    def _add(self, timed: TimedShape) -> None:
        self.probe = self.probe.model_copy(update={"shapes": (*self.probe.shapes, timed)})

    def _replace_first(self, timed: TimedShape) -> None:
        self.probe = self.probe.model_copy(update={"shapes": (timed, *self.probe.shapes[1:])})

    def _time(self, model: ModelConfig, trainer: TrainerConfig) -> TimedShape:
        if trainer.sharding == "fsdp":
            # One device times, which does not hold all layers: a part of the depth has the same
            # speed per operation.
            share = max(1, model.num_layers // (trainer.num_devices * trainer.num_nodes))
            model = model.model_copy(update={"num_layers": share})
            trainer = trainer.model_copy(update={"sharding": "off"})

        started = self._clock()
        tokens = self._choose_part(model, trainer)
        self._report(_describe(model, trainer, tokens))
        share = PROBE_FRACTION * self._params.budget.hours * 3600 / TIMINGS_IN_FRACTION
        seconds = min(MOST_SECONDS, share) if tokens is None else self._long_seconds
        timed = time_shape(self._worker, model, trainer, seconds, tokens)

        compiling = timed.first_seconds if trainer.compile else 0.0
        self._last_seconds = self._clock() - started - compiling
        self._left -= self._last_seconds
        return timed

    def _choose_part(self, model: ModelConfig, trainer: TrainerConfig) -> int | None:
        """Return the tokens of a pass if whole steps take too long; None: time whole steps.

        A shape that was timed before is timed the same way, so that the two compare.
        """
        speed = self.probe.speed_of(model, is_compiled=trainer.compile)
        is_long = WHOLE_STEPS * trainer.batch_tokens / speed > self._long_seconds
        before = next((one for one in self.probe.shapes if one.model == model), None)
        if not (is_long if before is None else before.is_extrapolated):
            return None
        two_layers = model.model_copy(update={"num_layers": min(2, model.num_layers)})
        speed = self.probe.speed_of(two_layers, is_compiled=trainer.compile)
        return max(1, int(self._long_seconds / PARTS_PASSES * speed))

    @property
    def _has_time(self) -> bool:
        """Whether there is time for one more shape, and for the favorite compiled."""
        return self._left >= self._last_seconds * (2 if self._may_compile else 1)

    @property
    def _may_compile(self) -> bool:
        """Whether so much time can pay for compiling, the first time."""
        cost = load_calibration().speed.compile_seconds
        gain = _compiled_gain(self._params.budget.hours * 3600, cost)
        return self._params.training.compile != "off" and gain > 1

    def _list_variants(self, model: ModelConfig, trainer: TrainerConfig) -> Iterator[JsonObject]:
        """Yield changes of the trainer that may be faster; on a GPU, torch chooses the kernel."""
        is_free = trainer.device == "cpu" and not self._params.model.flash_attention
        if is_free and trainer.attention == "matmul":
            yield {"attention": "sdpa"}
        elif is_free and model.context_length <= MOST_MATMUL_CONTEXT:
            yield {"attention": "matmul"}
        if self._params.training.micro_batch_size is None and trainer.micro_batch_size % 2 == 0:
            yield {"micro_batch_size": trainer.micro_batch_size // 2}

    def _can_pay(self, model: ModelConfig, trainer: TrainerConfig, seconds: float) -> bool:
        """Return whether `seconds` of training, less the compilation, are worth more compiled."""
        rule = load_calibration().speed
        cost = self._compile_seconds(model, trainer)
        pays = _compiled_gain(seconds, cost) > rule.least_compile_gain
        if not pays:
            self._note(
                f"not compiled: {seconds:.0f} s of training are too short to pay for about "
                f"{cost:.0f} s of it"
            )
        return pays

    def _compile_seconds(self, model: ModelConfig, trainer: TrainerConfig) -> float:
        rule = load_calibration().speed
        is_known = self._compiled is not None and self._compiled.knows(model, trainer)
        return rule.warm_compile_seconds if is_known else rule.compile_seconds

    def _may_still_compile(self, model: ModelConfig, trainer: TrainerConfig) -> bool:
        """Return whether compiling fits into the seconds for timings; else it is assumed to pay."""
        cost = COMPILE_MARGIN * self._compile_seconds(model, trainer) + self._last_seconds
        if self._clock() + cost <= self._ends_at:
            return True

        gain = load_calibration().speed.compile_speedup
        self.probe = self.probe.model_copy(update={"assumes_compiled": True})
        self._note(
            f"compiling was not timed: about {cost:.0f} s of it are more than a plan may take; a "
            f"run times it, and {gain:g} times the speed is assumed"
        )
        return False

    def _time_first_again(self) -> None:
        """Time the first shape once more if it was disturbed: MLflow starts at the same time."""
        first, *others = self.probe.shapes
        best = max((shape.achieved_flops for shape in others), default=0.0)
        if first.achieved_flops >= DISTURBED_SHARE * best or not self._has_time:
            return

        again = self._time(first.model, self.choose(first.model))
        self._replace_first(min(first, again, key=lambda shape: shape.step_seconds))

    def _try_one_thread(self) -> None:
        """Take one thread if several slow each other down: a busy core stops all at barriers."""
        machine = self.probe.machine
        timed = self.probe.shapes[0]
        share = timed.achieved_flops / machine.usual_flops
        if machine.device != "cpu" or machine.num_threads == 1 or share >= SUSPICIOUS_SHARE:
            return

        single = machine.model_copy(update={"num_threads": 1})
        trainer = self.choose(timed.model).model_copy(update={"num_threads": 1})
        alone = self._time(timed.model, trainer)

        if alone.step_seconds < timed.step_seconds:
            self.probe = self.probe.model_copy(update={"machine": single})
            self._replace_first(alone)
            self._note(
                f"one thread instead of {machine.num_threads}: {alone.tokens_per_second:,.0f} "
                f"tokens/s against {timed.tokens_per_second:,.0f}; the cores are busy, or the "
                "shape is too small to share"
            )


def _compiled_gain(seconds: float, cost: float) -> float:
    """Return the factor on the steps of `seconds` if compiling takes `cost` of them."""
    return (seconds - cost) * load_calibration().speed.compile_speedup / max(seconds, 1e-9)


def _describe(model: ModelConfig, trainer: TrainerConfig, part_tokens: int | None) -> str:
    """Return "Timing 12 layers x 768 dims, compiled: parts of a step" and the like."""
    compiled = ", compiled" if trainer.compile else ""
    parts = "" if part_tokens is None else ": passes at one layer and at two"
    layers = count(model.num_layers, "layer")
    return f"Timing {layers} x {model.model_dim} dims{compiled}{parts}"
