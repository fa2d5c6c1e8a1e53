"""Bytes that a run will write to disk, from its plan; checked before each part begins."""

from collections.abc import Mapping
from pathlib import Path

from lightlm.budget.plan import Plan
from lightlm.store.space import check_space

CHECKPOINTS = 3
"""Checkpoints on disk at a time: the two that are kept, and the one being written."""

WEIGHT_BYTES = 4
"""Bytes per parameter in float32, as checkpoints and the exported model keep it."""

OPTIMIZER_BYTES = 8
"""Bytes per parameter of two moments in float32 (AdamW); Muon keeps one and needs less."""

COPIES = 3
"""Copies of the exported model: the run's own, the registry's, and the one opened to generate."""

BESIDE_BYTES = 32 << 20
"""Bytes of the record, logs, charts, tokenizer and both databases of a run (20 MB measured)."""


def estimate_training_bytes(plan: Plan) -> Mapping[str, int]:
    """Return the bytes that training and registration write at most at one time, by purpose."""
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
