"""Sparklines: a row of numbers as a few characters, for a cell of a table."""

from collections.abc import Sequence
from itertools import pairwise

BLOCKS = "▁▂▃▄▅▆▇█"

PLAIN = "_.-~=+*#"
"""Heights for terminals that cannot show blocks."""


def render_sparkline(values: Sequence[float], width: int, *, is_unicode: bool) -> str:
    """Return at most `width` characters, each the mean of its share of the values; "" without
    values.

    The first character is cut to the height of the rest: the loss of a model that knows nothing is
    far above all else and would press the rest into one line.
    """
    if not values:
        return ""
    columns = min(width, len(values))
    edges = [index * len(values) // columns for index in range(columns + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low = min(means)
    high = max(means[1:] or means)
    signs = BLOCKS if is_unicode else PLAIN
    span = high - low
    heights = [0.0 if span <= 0 else min(1.0, (mean - low) / span) for mean in means]
    return "".join(signs[min(len(signs) - 1, int(height * len(signs)))] for height in heights)
