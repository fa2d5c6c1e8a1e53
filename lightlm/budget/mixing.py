"""Counts and a network: how many tokens to count, the seconds that it takes, what both reach
together.

Pure arithmetic, no torch. The law of the mixture is a smooth minimum of the two scores; see
docs/decisions.md for its figures.
"""

import math
from collections.abc import Iterator

from lightlm.budget.calibration import load_calibration
from lightlm.budget.plan import CountsPlan, Plan
from lightlm.budget.reserve import Closing
from lightlm.budget.scaling import predict_loss
from lightlm.model.accounting import count_matrix_parameters
from lightlm.ngram.counts import MOST_TOKENS
from lightlm.quantities import count

LEAST_COUNTED = 31_250
"""Tokens below which counting is not tried: seven times half of the most."""

COUNTING_SHARE = 0.08
"""Fraction of the time left that counting may take."""

SECONDS_PER_MILLION = 1.0
"""Seconds to count and write a million tokens (two cores of an AMD EPYC; one is busy)."""

GATE_SECONDS = 2.0
"""Seconds to open the tables twice, fit the gate, and write and register the tables (2.4 million
tokens counted).
"""

SCORING_COST = 1.15
"""Factor on the network's time to score a token: the entropy of its distribution takes little."""

SHARPNESS = 8.0
"""Inverse bits per byte: how sharply the mixture follows the better of the two."""

LEAST_GAIN = 0.003
"""Fraction of the network's score that the mixture has to gain to be worth its tables."""

MOST_MULTIPLE = 1e5
"""Multiple of a run's operations up to which a time is sought that reaches a score."""


def choose_most_tokens(num_tokens: int, seconds: float) -> int:
    """Return how many of a text's tokens are counted with `seconds` left; 0: it does not pay.

    All up to MOST_TOKENS, else halved until they fit, so that runs of about the same time share
    the tables.
    """
    fitting = COUNTING_SHARE * seconds / SECONDS_PER_MILLION * 1e6
    most = MOST_TOKENS
    while most > LEAST_COUNTED and min(most, num_tokens) > fitting:
        most //= 2
    return most if min(most, num_tokens) <= fitting else 0


def choose_counted_bytes(seconds: float) -> float:
    """Return the bytes of text whose tokens can be counted with `seconds` left.

    More text helps counts more than anything else does: on WikiText-2 (0.02 h, two cores without
    AMX, November 2026) 4 MB give 1.650 bits per byte and 8 MB 1.558.
    """
    fitting = COUNTING_SHARE * max(0.0, seconds) / SECONDS_PER_MILLION * 1e6
    return min(MOST_TOKENS, fitting) * load_calibration().text.bytes_per_token


def reserve_mixing(closing: Closing, num_scored: int, seconds_per_token: float) -> Closing:
    """Return what to keep for the end of a run whose model is mixed with counts."""
    return Closing(
        closing.seconds + GATE_SECONDS + 1.2 * num_scored * seconds_per_token,
        closing.scoring_margin * SCORING_COST,
    )


def predict_together(network: float, counting: float) -> float:
    """Return the bits per byte of a network and counts together, from those of each alone."""
    better, worse = sorted((network, counting))
    return better - math.log1p(math.exp(SHARPNESS * (better - worse))) / SHARPNESS


def add_counts(
    alone: Plan, mixed: Plan, counts: CountsPlan, hours: float, unique_bytes: float
) -> Plan:
    """Return the better one of two plans for `hours`, of the network alone and of one that keeps
    time for its mixture; with the scores of the counts and of both together.
    """
    bits = predict_together(mixed.predicted_bits_per_byte, counts.counting_bits_per_byte)
    is_mixed = bits < (1 - LEAST_GAIN) * alone.predicted_bits_per_byte
    plan = mixed if is_mixed else alone
    factor = bits / mixed.predicted_bits_per_byte
    counts = counts.model_copy(
        update={
            "is_mixed": is_mixed,
            "predicted_bits_per_byte": bits,
            "predicted_low": factor * mixed.predicted_low,
            "predicted_high": factor * mixed.predicted_high,
        }
    )
    what = (
        f"counting {count(counts.num_tokens, 'token')} alone gives "
        f"{counts.counting_bits_per_byte:.3f} bits per byte"
    )
    if is_mixed:
        until = find_last_hours(mixed, hours, unique_bytes, counts.counting_bits_per_byte)
        most = "at any budget" if until is None else f"up to about --hours {until:.2g}"
        reason = (
            f"{what}, the network {plan.predicted_bits_per_byte:.3f}, both together {bits:.3f}: "
            f"the version gets its count tables; by the law they gain {most}"
        )
    else:
        reason = f"{what}, and would add nothing to the network: it is trained alone"
    return plan.model_copy(update={"counts": counts, "reasons": [*plan.reasons, reason]})


def find_hours(
    plan: Plan, hours: float, unique_bytes: float, reached: float, wanted: float
) -> float | None:
    """Return the hours from which a network alone would reach `wanted` bits per byte, by the law;
    None: not within MOST_MULTIPLE of these.

    `reached` is its score after `hours`.
    """
    later = forecast_network(plan, unique_bytes, reached)
    return next((hours * multiple for multiple, bits in later if bits < wanted), None)


def find_last_hours(plan: Plan, hours: float, unique_bytes: float, counting: float) -> float | None:
    """Return the hours up to which a network gains LEAST_GAIN from counts whose own score stays
    `counting`, by the law; None: within MOST_MULTIPLE of these it always does.
    """
    return next(
        (
            hours * multiple
            for multiple, bits in forecast_network(plan, unique_bytes, plan.predicted_bits_per_byte)
            if predict_together(bits, counting) > (1 - LEAST_GAIN) * bits
        ),
        None,
    )


def forecast_network(
    plan: Plan, unique_bytes: float, reached: float
) -> Iterator[tuple[float, float]]:
    """Yield multiples of a run's time, and the bits per byte that its network would reach in each
    by the law, where it reached `reached`. Size and tokens grow alike with the time.
    """
    size = count_matrix_parameters(plan.model)
    seen = plan.expected_tokens * plan.bytes_per_token
    law = predict_loss(size, seen, unique_bytes, plan.difficulty).bits_per_byte
    multiple = 1.0
    while multiple <= MOST_MULTIPLE:
        root = math.sqrt(multiple)
        bits = predict_loss(round(size * root), seen * root, unique_bytes, plan.difficulty)
        yield multiple, reached * bits.bits_per_byte / law
        multiple *= 1.05
