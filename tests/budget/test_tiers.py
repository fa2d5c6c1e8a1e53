import pytest

from lightlm.budget.tiers import tier_of


@pytest.mark.parametrize(
    ("hours", "name"),
    [
        (0.009, "ultra-fast testing"),
        (0.01, "quick"),
        (0.49, "quick"),
        (0.5, "medium"),
        (3.0, "medium"),
        (3.01, "long"),
    ],
)
def test_a_tier_begins_at_its_hours(hours: float, name: str) -> None:
    assert tier_of(hours).name == name


@pytest.mark.parametrize("hours", [0.0, 0.1, 1.0, 2.0, 10.0])
def test_the_heads_of_a_tier_divide_its_width_evenly(hours):
    tier = tier_of(hours)
    assert tier.model_dim % (2 * tier.num_heads) == 0


def test_more_hours_never_give_a_smaller_shape():
    rows = [tier_of(hours) for hours in (0.0, 0.1, 1.0, 2.0, 10.0)]
    for field in ("num_layers", "model_dim", "context_length"):
        values = [getattr(row, field) for row in rows]
        assert values == sorted(values)
