"""Learning rate and momentum as functions of the fraction of the budget that is spent.

No step count enters here: a slow, throttled or shared machine still finishes annealed.
"""

WARMUP_MOMENTUM = 0.85
"""Muon's momentum at the start. nanochat ramps it from 0.85 to 0.95, while gradients still turn."""

MOMENTUM_RAMP_FRACTION = 0.1
"""Fraction of the budget at which the momentum reaches its full value."""


def learning_rate_factor(
    progress: float, *, warmup_fraction: float, cooldown_fraction: float
) -> float:
    """Return the factor on the peak learning rate at `progress` in [0, 1]: 1 at the peak, 0 at the
    end.

    A linear warm-up, a constant phase, and a linear cooldown that ends at zero when the budget
    does. Source: linear decay to zero, arXiv 2502.15938; budgeted training, arXiv 1905.04753.
    """
    progress = min(max(progress, 0.0), 1.0)
    warm = min(1.0, (progress + 1e-3) / warmup_fraction) if warmup_fraction > 0 else 1.0
    return min(warm, (1.0 - progress) / cooldown_fraction, 1.0)


def momentum_at(progress: float, peak: float) -> float:
    """Return Muon's momentum at `progress` in [0, 1]."""
    ramp = min(1.0, max(0.0, progress) / MOMENTUM_RAMP_FRACTION)
    start = min(WARMUP_MOMENTUM, peak)
    return start + (peak - start) * ramp
