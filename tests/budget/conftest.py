from collections.abc import Callable
from typing import Any

import pytest

from lightlm.budget.candidate import TextFacts
from lightlm.budget.history import FinishedRun
from lightlm.budget.plan import Plan
from lightlm.budget.planner import plan
from lightlm.budget.probe import MachineRate, Probe, TimedShape
from lightlm.budget.ranking import TimeLeft
from lightlm.budget.reserve import Closing
from lightlm.model.accounting import flops_per_token
from lightlm.model.config import ModelConfig
from lightlm.params import load_params

MACHINE = MachineRate(
    device="cpu",
    dtype="bfloat16",
    num_threads=2,
    flops_per_second=4e11,
    memory_bytes=16_000_000_000,
)
WIKITEXT = TextFacts(
    vocab_size=2048,
    num_train_tokens=3_050_000,
    num_train_bytes=10_800_000,
    num_validation_tokens=316_000,
    num_validation_bytes=1_119_083,
)
EFFICIENCIES = {64: 0.10, 192: 0.25, 384: 0.35}
"""Share of the matrix rate that training reaches at a width: figures as two quiet cores
give them.
"""


def time_literally(model_dim: int, share: float, *, is_compiled: bool = False) -> TimedShape:
    model = ModelConfig(
        vocab_size=2048,
        num_layers=model_dim // 64,
        model_dim=model_dim,
        num_heads=model_dim // 64,
        num_kv_heads=model_dim // 64,
        head_dim=64,
        ffn_dim=max(64, round(model_dim * 8 / 3 / 64) * 64),
        context_length=128,
    )

    speed = share * MACHINE.flops_per_second / flops_per_token(model)
    return TimedShape(
        model=model,
        batch_tokens=2048,
        is_compiled=is_compiled,
        first_seconds=0.1,
        step_seconds=2048 / speed,
        slow_step_seconds=2048 / speed * 1.2,
        tokens_per_second=speed,
        score_tokens_per_second=2.5 * speed,
        memory_bytes=500_000_000,
    )


@pytest.fixture
def machine() -> MachineRate:
    return MACHINE


@pytest.fixture
def text() -> TextFacts:
    return WIKITEXT


@pytest.fixture
def time_shape() -> Callable[..., TimedShape]:
    """Return the timing of a shape of a width, at a share of the matrix rate."""
    return time_literally


@pytest.fixture
def probe() -> Probe:
    return Probe(
        machine=MACHINE, shapes=[time_literally(dim, share) for dim, share in EFFICIENCIES.items()]
    )


@pytest.fixture
def make_plan(probe: Probe) -> Callable[..., Plan]:
    """Return the plan of params' overrides (`model__num_layers`), from the probe's figures."""

    def make(
        *,
        hours: float = 0.02,
        remaining: float | None = None,
        text: TextFacts = WIKITEXT,
        probe: Probe = probe,
        **overrides: Any,
    ) -> Plan:
        dotted = {name.replace("__", "."): value for name, value in overrides.items()}
        params = load_params(overrides=dotted, hours=hours)
        seconds = hours * 3600 - 10 if remaining is None else remaining
        return plan(params, text, probe, TimeLeft(seconds, Closing(4.0)))

    return make


@pytest.fixture
def make_run() -> Callable[..., FinishedRun]:
    """Gives a finished run, in all but what is changed the same."""
    values = {
        "run": "20260101-000000-abc",
        "ended_at": 1.0,
        "hardware_id": "machine",
        "hours": 0.1,
        "dataset": "wikitext-2-v1",
        "text_sha256": "text",
        "shape": "2 layers x 128 dims",
        "matrix_parameters": 1_000_000,
        "seen_bytes": 1e7,
        "unique_bytes": 10_800_000,
        "hardness": 1.0,
        "training_seconds": 300.0,
        "planned_tokens_per_second": 10_000.0,
        "tokens_per_second": 9_000.0,
        "predicted_bits_per_byte": 1.5,
        "predicted_low": 1.4,
        "predicted_high": 1.6,
        "bits_per_byte": 1.55,
        "is_whole": True,
    }

    return lambda **changed: FinishedRun.model_validate(values | changed)
