"""The documented tiers: a fixed table from hours to data and shape (`planner: tiers`)."""

from typing import NamedTuple


class Tier(NamedTuple):
    """A row: limits of the data, and a shape. `max_steps` None: until the deadline."""

    name: str
    documents: int | None
    fraction: float | None
    num_layers: int
    model_dim: int
    num_heads: int
    context_length: int
    max_steps: int | None


def tier_of(hours: float) -> Tier:
    """Return the documented tier of a budget in hours."""
    if hours < 0.01:
        return Tier("ultra-fast testing", 20, None, 1, 64, 4, 64, 5)
    if hours < 0.5:
        return Tier("quick", 1000, None, 4, 256, 8, 256, None)

    if hours <= 3:
        return Tier(
            "medium",
            None,
            0.25,
            12,
            512 if hours < 1.5 else 768,
            16 if hours < 1.5 else 12,
            512,
            None,
        )

    return Tier("long", None, 0.7, 30, 768, 16, 1024, None)
