"""What a run will write to disk, in bytes, from its text and its plan; asked for before each part
begins.
"""

from collections.abc import Mapping
from pathlib import Path

from lightlm.budget.plan import Plan
from lightlm.store.space import check_space

CHECKPOINTS = 3
"""The two that training keeps, and the one that is written before the oldest goes."""

WEIGHT_BYTES = 4
"""A parameter in float32, as checkpoints and the exported model keep it."""

OPTIMIZER_BYTES = 8
"""A parameter's two moments in float32 (AdamW); Muon keeps one and needs less."""

COPIES = 3
"""Of the exported model: the run's own, the registry's, and the one that is opened to generate."""

BESIDE_BYTES = 32 << 20
"""The record, logs, charts, tokenizer and both databases of a run (20 MB measured)."""


def estimate_training_bytes(plan: Plan) -> Mapping[str, int]:
    """Return what training and registration will write at most at one time, by what it is."""
    per_parameter = WEIGHT_BYTES + OPTIMIZER_BYTES + (WEIGHT_BYTES if plan.keep_best else 0)
    return {
        "checkpoints": CHECKPOINTS * per_parameter * plan.num_parameters,
        "the model": COPIES * WEIGHT_BYTES * plan.num_parameters,
        "records": BESIDE_BYTES,
    }


def check_training_space(home: Path, plan: Plan) -> None:
    """Refuse to train what the disk has no room for.

    Raises:
        StoreError: with what would be written, what is free, and what to do.
    """
    parts = estimate_training_bytes(plan)
    listed = ", ".join(f"{name} {num_bytes / 1e6:,.0f} MB" for name, num_bytes in parts.items())
    check_space(
        home, sum(parts.values()), f"training {plan.num_parameters:,} parameters ({listed})"
    )
