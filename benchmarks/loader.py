"""The loader: bytes of shards a second into batches, its memory at many tokens, and how long
training waits for it.

    .venv/bin/python benchmarks/loader.py [--million-tokens 100]

The rate is of token bytes on disk (uint16, shuffled windows of 1,024) turned into batches by the
reader threads, as fast as they are taken, a CPU second of the whole process: a busy machine does
not change it. Widening to int64, which training does for each micro-batch, is told beside it.
Waiting is measured against training steps of a model that is small for this machine, the hardest
case.
"""

import shutil
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from results import Figure, parse_folder, report

from lightlm.data.loader import ThreadedDataLoader
from lightlm.data.token_array import TokenArray
from lightlm.model.config import ModelConfig
from lightlm.training.config import TrainerConfig
from lightlm.training.device import build_model
from lightlm.training.optimizer import Optimizer
from lightlm.training.stop_criterion import StepCriterion
from lightlm.training.trainer import train

CONTEXT = 1024
BATCH = 64
TOKEN_BYTES = 2


def write_shards(folder: Path, num_tokens: int) -> list[Path]:
    """Write random ids in files of 2^26 tokens, some million at a time; return the files."""
    draw = np.random.default_rng(0)
    files: list[Path] = []
    left = num_tokens

    while left:
        path = folder / f"train-{len(files):05d}.bin"
        with path.open("wb") as file:
            room = min(left, 1 << 26)
            left -= room
            while room:
                count = min(room, 1 << 22)
                file.write(draw.integers(0, 4096, count, dtype="<u2").tobytes())
                room -= count
        files.append(path)

    return files


class Rates(NamedTuple):
    """Bytes of shards a second that batches are made of."""

    cpu: float
    wall: float


def measure_rate(tokens: TokenArray, is_widened: bool = False, max_seconds: float = 3.0) -> Rates:
    """Return the rates of the loader, with each batch widened to int64 if asked."""
    with ThreadedDataLoader(tokens, context_length=CONTEXT, batch_size=BATCH, seed=0) as loader:
        for _ in range(10):
            next(loader)
        started = time.perf_counter()
        charged = time.process_time()
        taken = 0
        while time.perf_counter() - started < max_seconds:
            batch = next(loader)
            taken += batch.inputs.numel() * TOKEN_BYTES
            if is_widened:
                batch.widen()
        return Rates(
            taken / (time.process_time() - charged), taken / (time.perf_counter() - started)
        )


def measure_waiting(tokens: TokenArray, steps: int = 60) -> float:
    """Return the share of step time that training waits for batches."""
    shape = {
        "num_layers": 1,
        "model_dim": 64,
        "num_heads": 1,
        "num_kv_heads": 1,
        "head_dim": 64,
        "ffn_dim": 128,
    }

    config = ModelConfig.model_validate({"vocab_size": 4096, "context_length": 128, **shape})
    trainer = TrainerConfig(
        batch_tokens=2048, micro_batch_size=16, attention="matmul", num_threads=1
    )
    model = build_model(config, trainer)
    waited = total = 0.0

    with ThreadedDataLoader(tokens, context_length=128, batch_size=16, seed=0) as loader:
        for event in train(model, Optimizer(model, trainer), loader, trainer, StepCriterion(steps)):
            if event.step > 5:
                waited += getattr(event, "waited_seconds", 0.0)
                total += getattr(event, "seconds", 0.0)

    return waited / total


def resident() -> int:
    """Return the resident bytes of this process, with those of mapped files, which the kernel may
    take any time.
    """
    return psutil.Process().memory_info().rss


def copy_rate() -> float:
    """Return GB a CPU second that one thread copies, the least of five times counting."""
    source = np.ones(1 << 28, dtype=np.uint8)
    target = np.zeros_like(source)
    seconds = []
    for _ in range(5):
        started = time.process_time()
        np.copyto(target, source)
        seconds.append(time.process_time() - started)
    return len(source) / min(seconds) / 1e9


def main() -> None:
    """Measure and report."""
    options = parse_folder(__doc__ or "", million_tokens={"type": int, "default": 100})
    folder = Path(tempfile.mkdtemp(prefix="lightlm-loader-"))
    try:
        tokens = TokenArray(write_shards(folder, options.million_tokens * 1_000_000), "<u2")
        before = resident()
        rate = measure_rate(tokens)
        widened = measure_rate(tokens, is_widened=True)
        memory = resident() - before
        waiting = measure_waiting(tokens)
        copied = copy_rate()
        figures = [
            Figure(
                "shards into batches",
                rate.cpu / 1e9,
                "GB/CPU s",
                1,
                "value",
                limit=copied,
                limit_name="copy",
            ),
            Figure(
                f"memory, {len(tokens) / 1e6:,.0f}M tokens",
                memory / 1e9,
                "GB",
                1,
                "value",
                is_lower_better=True,
            ),
            Figure(
                "wait for batches, of a step", 100 * waiting, "%", 1, "value", is_lower_better=True
            ),
        ]
        details = {"num_tokens": len(tokens), "rate": rate._asdict(), "widened": widened._asdict()}
        print(
            f"by the clock {rate.wall / 1e9:.2f} GB/s; widened to int64 {widened.cpu / 1e9:.2f} "
            "GB/CPU s"
        )
        report("loader", figures, options.out, details)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
