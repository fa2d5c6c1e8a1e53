import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlm.training.schedule import (
    MOMENTUM_RAMP_FRACTION,
    WARMUP_MOMENTUM,
    learning_rate_factor,
    momentum_at,
)

fractions = st.floats(0, 1)


@settings(deadline=None)
@given(progress=st.floats(-1, 2), warmup=st.floats(0, 0.5), cooldown=st.floats(0.01, 1))
def test_the_factor_lies_between_zero_and_one(progress, warmup, cooldown):
    assert (
        0 <= learning_rate_factor(progress, warmup_fraction=warmup, cooldown_fraction=cooldown) <= 1
    )


@settings(deadline=None)
@given(warmup=st.floats(0, 0.5), cooldown=st.floats(0.01, 1))
def test_the_factor_ends_at_zero_and_starts_above_it(warmup, cooldown):
    assert learning_rate_factor(1.0, warmup_fraction=warmup, cooldown_fraction=cooldown) == 0.0
    assert learning_rate_factor(0.0, warmup_fraction=warmup, cooldown_fraction=cooldown) > 0.0


@settings(deadline=None)
@given(one=fractions, other=fractions, cooldown=st.floats(0.01, 1))
def test_after_the_warm_up_the_factor_never_rises(one, other, cooldown):
    early, late = sorted(max(0.1, value) for value in (one, other))
    at_early = learning_rate_factor(early, warmup_fraction=0.1, cooldown_fraction=cooldown)
    assert learning_rate_factor(late, warmup_fraction=0.1, cooldown_fraction=cooldown) <= at_early


@pytest.mark.parametrize(
    ("progress", "factor"),
    [(0.05, 0.51), (0.1, 1.0), (0.5, 1.0), (0.8, 1.0), (0.9, 0.5), (0.95, 0.25), (1.0, 0.0)],
)
def test_the_factor_warms_up_stays_and_cools_down_linearly(progress, factor):
    found = learning_rate_factor(progress, warmup_fraction=0.1, cooldown_fraction=0.2)
    assert found == pytest.approx(factor)


def test_the_momentum_rises_to_its_peak_and_stays():
    assert momentum_at(0.0, 0.95) == WARMUP_MOMENTUM
    assert momentum_at(MOMENTUM_RAMP_FRACTION / 2, 0.95) == pytest.approx(
        (WARMUP_MOMENTUM + 0.95) / 2
    )
    assert (
        momentum_at(MOMENTUM_RAMP_FRACTION, 0.95) == momentum_at(1.0, 0.95) == pytest.approx(0.95)
    )


def test_a_peak_below_the_start_is_kept_from_the_start():
    assert momentum_at(0.0, 0.5) == momentum_at(1.0, 0.5) == 0.5
