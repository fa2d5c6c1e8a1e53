"""Measurements on this machine: real training steps of a configuration, and matrix products."""

import contextlib
import math
import time
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import psutil
import torch
from pydantic import BaseModel

from lightlm.data.loader import Batch
from lightlm.model.config import ModelConfig
from lightlm.training.config import TrainerConfig
from lightlm.training.device import DTYPES, allow_tf32, build_model
from lightlm.training.optimizer import Optimizer
from lightlm.training.stop_criterion import StepCriterion
from lightlm.training.trainer import train

WARM_STEPS = 2
"""Steps before the measured ones: allocations, and the kernels' own choices, settle."""


MOST_WARM_SECONDS = 8.0
"""Seconds after which the steps so far have to do: the machine is far slower than was expected."""


class StepTiming(BaseModel, frozen=True):
    """Seconds of steps: the first with compilation, and the warm ones' lower quartile."""

    first_seconds: float
    step_seconds: float
    slow_step_seconds: float
    num_steps: int
    tokens_per_second: float
    score_tokens_per_second: float
    memory_bytes: int


def time_steps(model: ModelConfig, trainer: TrainerConfig, max_seconds: float) -> StepTiming:
    """Return the timing of steps on random tokens, in `max_seconds` after the first."""
    trainer = trainer.model_copy(update={"context_ramp_fraction": 0.0})
    built = build_model(model, trainer)
    optimizer = Optimizer(built, trainer)
    batch = random_batch(model, trainer)
    started = time.perf_counter()
    seconds: list[float] = []
    first = math.nan

    for event in train(built, optimizer, _again(batch), trainer, StepCriterion(10_000)):
        if math.isnan(first):
            first = time.perf_counter() - started
            started = time.perf_counter()
            continue
        seconds.append(getattr(event, "seconds", 0.0))
        spent = time.perf_counter() - started
        if spent > (max_seconds if len(seconds) > WARM_STEPS else MOST_WARM_SECONDS):
            break

    warm = seconds[WARM_STEPS:] or seconds
    # A neighbor makes some steps slow and none fast: the lower quartile tells shapes apart on a
    # busy machine, too.
    step_seconds = sorted(warm)[len(warm) // 4]
    return StepTiming(
        first_seconds=first,
        step_seconds=step_seconds,
        slow_step_seconds=max(warm),
        num_steps=len(seconds),
        tokens_per_second=trainer.batch_tokens / step_seconds,
        score_tokens_per_second=batch.inputs.numel() / _time_scoring(built, batch),
        memory_bytes=used_memory(trainer.device),
    )


def measure_matrix_rate(trainer: TrainerConfig, max_seconds: float = 0.25) -> float:
    """Return the operations per second of square matrix products on the trainer's device."""
    torch.set_num_threads(trainer.num_threads)
    size = 1024 if trainer.device == "cpu" else 8192
    allow_tf32(trainer.device)
    dtype = DTYPES[trainer.dtype]
    left = torch.randn(size, size, dtype=dtype, device=trainer.device)
    best = math.inf
    deadline = time.perf_counter() + max_seconds

    while True:
        started = time.perf_counter()
        product = left @ left
        wait(product)
        best = min(best, time.perf_counter() - started)
        if time.perf_counter() > deadline:
            return 2 * size**3 / best


def random_batch(model: ModelConfig, trainer: TrainerConfig) -> Batch:
    """Return one batch of uniformly drawn tokens, (B, T)."""
    generator = torch.Generator().manual_seed(0)
    shape = (max(1, trainer.batch_tokens // model.context_length), model.context_length + 1)
    tokens = torch.randint(0, model.vocab_size, shape, generator=generator).to(trainer.device)
    return Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())


def reset_peak_memory(device: str) -> None:
    """Reset the peak of `used_memory`, if the system can: the probe's shapes are not the run's."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        # proc(5): resets VmHWM to the present size
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def used_memory(device: str) -> int:
    """Return the most bytes that training held: of a GPU's memory, else of the process's resident
    set.

    If the system does not report a peak, the bytes that are resident now.
    """
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return psutil.Process().memory_info().rss


def _time_scoring(model: torch.nn.Module, batch: Batch) -> float:
    model.eval()
    with torch.inference_mode():
        model(batch.inputs, batch.targets)
        started = time.perf_counter()
        wait(model(batch.inputs, batch.targets))
    return time.perf_counter() - started


def wait(result: torch.Tensor) -> None:
    """Return when a device has computed `result`."""
    if result.device.type != "cpu":
        result.flatten()[0].item()


def _again(batch: Batch) -> Iterator[Batch]:
    return repeat(batch)
