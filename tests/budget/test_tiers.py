import pytest

from lightlm.budget.tiers import Tier, tier_of


@pytest.mark.parametrize(
    ("hours", "tier"),
    [
        (0.0, Tier("ultra-fast testing", 20, None, 1, 64, 4, 64, 5)),
        (0.009, Tier("ultra-fast testing", 20, None, 1, 64, 4, 64, 5)),
        (0.01, Tier("quick", 1000, None, 4, 256, 8, 256, None)),
        (0.49, Tier("quick", 1000, None, 4, 256, 8, 256, None)),
        (0.5, Tier("medium", None, 0.25, 12, 512, 16, 512, None)),
        (1.5, Tier("medium", None, 0.25, 12, 768, 12, 512, None)),
        (3.0, Tier("medium", None, 0.25, 12, 768, 12, 512, None)),
        (3.01, Tier("long", None, 0.7, 30, 768, 16, 1024, None)),
        (8760.0, Tier("long", None, 0.7, 30, 768, 16, 1024, None)),
    ],
)
def test_the_documented_tiers_are_these(hours, tier):
    assert tier_of(hours) == tier


@pytest.mark.parametrize("hours", [0.0, 0.1, 1.0, 2.0, 10.0])
def test_the_heads_of_a_tier_divide_its_width_evenly(hours):
    tier = tier_of(hours)
    assert tier.model_dim % (2 * tier.num_heads) == 0


def test_more_hours_never_give_a_smaller_shape():
    rows = [tier_of(hours) for hours in (0.0, 0.1, 1.0, 2.0, 10.0)]
    for field in ("num_layers", "model_dim", "context_length"):
        values = [getattr(row, field) for row in rows]
        assert values == sorted(values)
