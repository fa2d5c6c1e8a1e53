"""Figures of this machine: the rate of matrix products, and real training steps of a few shapes.

The worker measures; speed is interpolated between the measured shapes. No torch.
"""

import json
import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from pydantic import BaseModel, ValidationError

from lightlm.budget.calibration import load_calibration
from lightlm.budget.devices import choose_device, count_devices
from lightlm.budget.history import NO_CORRECTION, Correction
from lightlm.budget.scaling import expected_efficiency
from lightlm.budget.shapes import has_same_layers
from lightlm.errors import ParameterError
from lightlm.json_object import JsonObject
from lightlm.model.accounting import flops_per_token
from lightlm.model.config import ModelConfig
from lightlm.params import TrainingParams, describe_validation
from lightlm.system import Device, SystemReport
from lightlm.training.config import Attention, TrainerConfig

FAST_BFLOAT16 = 1.3
"""Factor on float32's matrix rate from which a dtype of 16 bits is used."""


MOST_GAIN = 2.5
"""Factor of bfloat16 over float32 that training steps on a CPU can show: the rest of a step is
vector arithmetic and memory. With AMX, products gain 6 to 9 times, a step of 1 layer x 128 as much
as elsewhere.
"""


REFERENCE = ModelConfig(
    vocab_size=4096, num_layers=2, model_dim=128, num_heads=2, num_kv_heads=2, head_dim=64,
    ffn_dim=352,
    context_length=128, tie_embeddings=False,
)  # fmt: skip
"""Shape that is timed before the vocabulary is chosen, which no later timing can mend. On one
thread of an EPYC, steps reached three times what the matrix rate had promised: 2,048 entries were
taken where 8,192 reach 2.5 % less.
"""

REFERENCE_BATCH_TOKENS = 2048

WORTH_CHANGING = 0.97
"""Fraction of the usual variant's step above which another one's gain is noise."""

WORTH_COMPILING = 0.98
"""Fraction of the eager step above which compiled steps are not worth it."""

REFERENCE_FROM_SECONDS = 100.0
"""Seconds of budget from which the reference shape is timed. A shorter one needs the half
second, and suits small vocabularies, which are guessed.
"""

MATRIX_RATE_SECONDS = 0.25
MATRIX_RATE_FRACTION = 0.004
"""Seconds of matrix products per precision, or the fraction of the budget if that is less."""


class Computer(Protocol):
    """What measures: the worker process."""

    def call(self, job: str, **arguments: Any) -> JsonObject:
        """Return the result of a job."""
        ...


Dtype = Literal["float32", "float16", "bfloat16"]


class MachineRate(BaseModel, frozen=True, extra="forbid"):
    """Device and precision of training here, and the rate of matrix products."""

    device: str
    dtype: Dtype
    num_threads: int
    flops_per_second: float
    memory_bytes: int
    num_devices: int = 1
    link_bytes_per_second: float | None = None
    """Bytes per second of an all-reduce among the devices, if that is known."""
    float32_flops_per_second: float | None = None
    reference_flops_per_second: float | None = None
    """Operations per second that steps of the reference shape reached, if it was timed."""

    @property
    def trained_flops(self) -> float:
        """Operations per second that the priors of speed are fractions of, once the reference shape
        was timed.

        Never below the usual rate: the reference is timed while MLflow starts, which disturbs it
        for a moment.
        """
        if self.reference_flops_per_second is None:
            return self.usual_flops
        return max(
            self.usual_flops,
            self.reference_flops_per_second / expected_efficiency(REFERENCE.model_dim),
        )

    @property
    def all_flops_per_second(self) -> float:
        """Operations per second of products on all devices; processes on a CPU share its cores."""
        return self.flops_per_second * (1 if self.device == "cpu" else self.num_devices)

    @property
    def usual_flops(self) -> float:
        """Operations per second that the priors of speed are fractions of, untimed."""
        if self.device != "cpu" or self.float32_flops_per_second is None:
            return self.flops_per_second
        return min(self.flops_per_second, MOST_GAIN * self.float32_flops_per_second)


class TimedShape(BaseModel, frozen=True, extra="ignore"):
    """A shape that was timed with real steps: seconds per step, tokens per second."""

    model: ModelConfig
    batch_tokens: int
    is_compiled: bool
    attention: Attention | None = None
    micro_batch_size: int | None = None
    first_seconds: float
    step_seconds: float
    slow_step_seconds: float
    tokens_per_second: float
    score_tokens_per_second: float
    memory_bytes: int
    is_extrapolated: bool = False
    """Whether parts of a step were timed instead of whole steps."""

    @property
    def achieved_flops(self) -> float:
        """Floating-point operations per second that the steps reached."""
        return flops_per_token(self.model) * self.tokens_per_second


class Probe(BaseModel, frozen=True, extra="forbid"):
    """All figures of a machine that a plan is made of (`--probe-file` makes the plan again)."""

    machine: MachineRate
    shapes: tuple[TimedShape, ...]
    correction: Correction = NO_CORRECTION
    lead_seconds: float = 0.0
    """Seconds from the start of a run to its training, as they were expected then."""
    assumes_compiled: bool = False
    """Whether training is expected to be compiled, though no time was left to time that."""
    notes: tuple[str, ...] = ()
    """What measuring decided, a sentence each; reasons of the plan."""

    @property
    def compile_seconds(self) -> float:
        """Seconds that compiling took, of the time for measuring."""
        return sum(shape.first_seconds for shape in self.shapes if shape.is_compiled)

    def find_compiled(self, model: ModelConfig) -> TimedShape | None:
        """Return the compiled timing that serves a shape: layers are compiled, of any depth."""
        return next(
            (s for s in self.shapes if s.is_compiled and has_same_layers(s.model, model)), None
        )

    def prefers_compiled(self, model: ModelConfig, *, is_demanded: bool) -> bool:
        """Return whether a shape is trained compiled: it is demanded, or was timed to be faster."""
        timed = self.find_compiled(model)
        if timed is None or is_demanded:
            return timed is not None or self.assumes_compiled
        eager = [
            s.step_seconds for s in self.shapes if not s.is_compiled and s.model == timed.model
        ]
        return not eager or timed.step_seconds < WORTH_COMPILING * min(eager)

    def find_variant(self, context_length: int) -> TimedShape | None:
        """Return the fastest variant of a shape; None if the usual one is as good."""
        eager = [
            s for s in self.shapes if not s.is_compiled and s.model.context_length == context_length
        ]
        same = [s for s in eager if s.attention is not None and s.model == eager[0].model]
        if not same:
            return None
        fastest = min(same, key=lambda s: s.step_seconds)
        return fastest if fastest.step_seconds < WORTH_CHANGING * same[0].step_seconds else None

    def summary(self) -> str:
        """Return every timed shape with its speed, in a line."""
        return ", ".join(
            f"{s.model.num_layers} x {s.model.model_dim}{' compiled' if s.is_compiled else ''}: "
            f"{s.tokens_per_second:,.0f} tokens/s"
            for s in self.shapes
        )

    def speed_of(self, model: ModelConfig, *, is_compiled: bool) -> float:
        """Return the expected training tokens per second of a shape, interpolated by width."""
        return (
            self.correction.speed
            * self.efficiency_at(model.model_dim, is_compiled)
            / flops_per_token(model)
        )

    def efficiency_at(self, model_dim: int, is_compiled: bool) -> float:
        """Return the operations per second of a width, log-linear between timed ones."""
        eager = self._eager_rates()
        if not eager:
            return expected_efficiency(model_dim) * self.machine.trained_flops

        reached = _interpolate(eager, model_dim)
        if not is_compiled:
            return reached

        speedups = [
            s.achieved_flops / _interpolate(eager, s.model.model_dim)
            for s in self.shapes
            if s.is_compiled
        ]

        return reached * (max(speedups) if speedups else load_calibration().speed.compile_speedup)

    def _eager_rates(self) -> list[tuple[int, float]]:
        """Return (width, operations per second), by width; the fastest variant of a shape."""
        rates: dict[int, float] = {}
        for shape in self.shapes:
            if not shape.is_compiled:
                width = shape.model.model_dim
                rates[width] = max(shape.achieved_flops, rates.get(width, 0.0))
        return sorted(rates.items())

    def score_speed(self, model: ModelConfig) -> float:
        """Return the expected tokens per second of scoring held-out text."""
        if not self.shapes:
            return load_calibration().speed.scoring_speedup * self.speed_of(
                model, is_compiled=False
            )
        nearest = min(self.shapes, key=lambda s: abs(math.log(s.model.model_dim / model.model_dim)))
        return (
            nearest.score_tokens_per_second
            * flops_per_token(nearest.model)
            / flops_per_token(model)
        )


def measure_machine(
    params: TrainingParams,
    system: SystemReport,
    computer: Computer,
    budget_seconds: float = math.inf,
) -> MachineRate:
    """Return the device, precision and measured matrix rate that training will use here.

    Raises:
        ParameterError: a device is demanded that is not there, or a dtype that it has not.
    """
    device = choose_device(params.device, system)
    num_threads = params.num_threads or system.num_cores
    halves = list_halves(device)
    if params.dtype not in ("auto", "float32", *halves):
        raise ParameterError(
            f"training.dtype is {params.dtype}, but {device.name} cannot compute it fast; give "
            f"{' or '.join(['float32', *halves, 'auto'])}"
        )

    wanted = ["float32", *halves[:1]] if params.dtype == "auto" else [params.dtype]
    trainer = TrainerConfig(
        batch_tokens=8, micro_batch_size=1, device=device.kind, num_threads=num_threads
    )
    rates = computer.call(
        "measure_matrix_rates",
        trainer=trainer.model_dump(),
        dtypes=wanted,
        max_seconds=min(MATRIX_RATE_SECONDS, MATRIX_RATE_FRACTION * budget_seconds),
    )

    last = wanted[-1]
    is_half = rates[last] >= FAST_BFLOAT16 * rates.get("float32", 0.0)
    dtype = cast(Dtype, last if is_half else "float32")
    return MachineRate(
        device=device.kind,
        dtype=dtype,
        num_threads=num_threads,
        num_devices=count_devices(params, system, device),
        flops_per_second=rates[dtype],
        float32_flops_per_second=rates.get("float32"),
        memory_bytes=system.available_memory_bytes if device.kind == "cpu" else device.memory_bytes,
    )


def list_halves(device: Device) -> list[str]:
    """Return the dtypes of 16 bits that a device computes fast, the best first: bfloat16 overflows
    nowhere, float16 wants its losses scaled.
    """
    halves = ["bfloat16"] if device.supports_bfloat16 else []
    return [*halves, "float16"] if device.supports_float16 else halves


def is_reference_worth_timing(machine: MachineRate, budget_seconds: float) -> bool:
    """Return whether the reference shape is timed: on a CPU, where there is time for it."""
    return machine.device == "cpu" and budget_seconds >= REFERENCE_FROM_SECONDS


def time_reference(machine: MachineRate, computer: Computer, budget_seconds: float) -> float:
    """Return the operations per second that steps of the reference shape reach."""
    trainer = TrainerConfig(
        batch_tokens=REFERENCE_BATCH_TOKENS,
        micro_batch_size=REFERENCE_BATCH_TOKENS // REFERENCE.context_length,
        device=machine.device,
        dtype=machine.dtype,
        attention="matmul",
        num_threads=machine.num_threads,
    )

    timed = time_shape(
        computer,
        REFERENCE,
        trainer,
        min(MATRIX_RATE_SECONDS, MATRIX_RATE_FRACTION * budget_seconds),
    )

    return timed.achieved_flops


def time_shape(
    computer: Computer,
    model: ModelConfig,
    trainer: TrainerConfig,
    max_seconds: float,
    part_tokens: int | None = None,
) -> TimedShape:
    """Return the timing of real steps of a shape; about `max_seconds` after the first step.

    With `part_tokens`, passes over so many tokens are timed at one layer and at two, and the step
    is extrapolated (training.step_parts).
    """
    wanted = {"model": model.model_dump(), "trainer": trainer.model_dump()}
    if part_tokens is None:
        timing = computer.call("time_steps", **wanted, max_seconds=max_seconds)
    else:
        timing = computer.call(
            "time_step_parts", **wanted, tokens=part_tokens, max_seconds=max_seconds
        )

    return TimedShape(
        model=model,
        batch_tokens=trainer.batch_tokens,
        is_compiled=trainer.compile,
        attention=trainer.attention,
        micro_batch_size=trainer.micro_batch_size,
        is_extrapolated=part_tokens is not None,
        **timing,
    )


def read_probe(path: Path) -> Probe:
    """Return the figures saved by `lightlm plan --json`, to make the same plan again.

    Raises:
        ParameterError: the file does not hold a probe.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ParameterError(f"cannot read the probe file {path}: {error}") from None
    if isinstance(values, Mapping) and "probe" in values:
        values = values["probe"]
    try:
        return Probe.model_validate(values)
    except ValidationError as error:
        raise ParameterError(f"{path} is not a probe file: {describe_validation(error)}") from None


def _interpolate(points: list[tuple[int, float]], width: int) -> float:
    if width <= points[0][0]:
        return points[0][1]
    for (left, low), (right, high) in pairwise(points):
        if width <= right:
            share = math.log(width / left) / math.log(right / left)
            return math.exp((1 - share) * math.log(low) + share * math.log(high))
    return points[-1][1]
