"""Plots as SVG: lines over common axes, bars, and champion against challenger.

Written by hand: importing matplotlib takes a second, and these follow a page's light or dark
colors.
"""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lightlm.evaluation.comparison import Comparison

Points = Sequence[tuple[float, float]]

WIDTH = 720
HEIGHT = 300
LEFT = 56
BOTTOM = 34
TOP = 12
"""Size and margins of a plot, in its own units; it is scaled to the page."""

COMPARISON_HEIGHT = 250
COMPARISON_BASE = 190
"""Height of the comparison's picture, and where its bars stand."""

BAR_HEIGHT = 20
BAR_GAP = 8
LABEL_WIDTH = 190


@dataclass(frozen=True)
class Line:
    """Points joined by a line: dashed for a prediction, with marks for single measurements."""

    name: str
    points: Points
    color: str
    is_dashed: bool = False
    has_marks: bool = False


def render_lines(lines: Sequence[Line], x_name: str, y_name: str) -> str:
    """Return lines over common axes.

    The highest 2 % of a line's values are cut off, because they would flatten the rest.
    """
    drawn = [line for line in lines if line.points]
    if not drawn:
        return ""

    right = max(x for line in drawn for x, _ in line.points) or 1.0
    low = min(y for line in drawn for _, y in line.points)
    high = max(
        sorted(y for _, y in line.points)[int(0.98 * (len(line.points) - 1))] for line in drawn
    )
    high = high + 0.05 * (high - low) or low + 1.0

    def place(x: float, y: float) -> str:
        across = LEFT + (WIDTH - LEFT - 10) * x / right
        down = TOP + (HEIGHT - TOP - BOTTOM) * (1 - (min(y, high) - low) / max(high - low, 1e-9))
        return f"{across:.1f},{down:.1f}"

    parts = [_open(HEIGHT)]
    for step in range(5):
        value = low + (high - low) * step / 4
        y = place(0, value).split(",")[1]
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y}" y2="{y}" class="grid"/>')
        parts.append(
            f'<text x="{LEFT - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{value:.2f}</text>'
        )

    for index, line in enumerate(drawn):
        path = " ".join(place(x, y) for x, y in line.points)
        dash = ' stroke-dasharray="5 4"' if line.is_dashed else ""
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{line.color}" '
            f'stroke-width="1.8"{dash}/>'
        )
        if line.has_marks:
            marks = (place(x, y).split(",") for x, y in line.points)
            parts += [f'<circle cx="{x}" cy="{y}" r="3.2" fill="{line.color}"/>' for x, y in marks]
        name = html.escape(line.name)
        parts.append(
            f'<text x="{WIDTH - 14}" y="{TOP + 14 + 22 * index}" text-anchor="end" '
            f'fill="{line.color}">{name}</text>'
        )

    parts.append(
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">{html.escape(x_name)}</text>'
    )
    parts.append(
        f'<text x="{LEFT + 6}" y="{HEIGHT - BOTTOM - 8}">{html.escape(y_name)}</text></svg>'
    )

    return "".join(parts)


def render_bars(
    values: Mapping[str, float], label: Callable[[float], str], highlighted: str = ""
) -> str:
    """Return a bar per value with its name and label; the one named `highlighted` stands out."""
    most = max([*values.values(), 1e-9])
    height = (BAR_HEIGHT + BAR_GAP) * len(values) + BAR_GAP
    parts = [_open(height)]

    for index, (name, value) in enumerate(values.items()):
        y = BAR_GAP + index * (BAR_HEIGHT + BAR_GAP)
        width = (WIDTH - LABEL_WIDTH - 130) * value / most
        kind = "bar chosen" if name == highlighted else "bar"
        parts.append(
            f'<text x="{LABEL_WIDTH - 8}" y="{y + 15}" text-anchor="end">{html.escape(name)}</text>'
        )
        parts.append(
            f'<rect x="{LABEL_WIDTH}" y="{y}" width="{width:.1f}" height="{BAR_HEIGHT}" '
            f'class="{kind}"/>'
        )
        parts.append(
            f'<text x="{LABEL_WIDTH + width + 6:.1f}" '
            f'y="{y + 15}">{html.escape(label(value))}</text>'
        )

    return "".join(parts) + "</svg>"


def render_comparison(comparison: Comparison) -> str:
    """Return how often each difference came out of the resamples, with its interval and zero."""
    height = COMPARISON_HEIGHT
    base = COMPARISON_BASE
    low = min(comparison.lowest, 0.0)
    high = max(comparison.highest, 0.0)
    margin = 0.08 * (high - low or 1.0)
    low = low - margin
    high = high + margin

    def place(value: float) -> float:
        return round(40 + (WIDTH - 80) * (value - low) / (high - low), 2)

    step = (comparison.highest - comparison.lowest) / max(1, len(comparison.histogram))
    tallest = max([*comparison.histogram, 1])
    color = "#2da44e" if comparison.is_better else "#8c959f"
    width = max(0.8, place(comparison.lowest + step) - place(comparison.lowest) - 0.6)
    bars = "".join(
        f'<rect x="{place(comparison.lowest + index * step)}" '
        f'y="{base - 130 * count / tallest:.1f}" '
        f'width="{width:.2f}" height="{130 * count / tallest:.1f}" fill="{color}"/>'
        for index, count in enumerate(comparison.histogram)
        if count
    )

    left = place(comparison.low)
    right = place(comparison.high)
    zero = place(0.0)
    interval = f"{comparison.difference:+.4f} ({comparison.low:+.4f} to {comparison.high:+.4f})"

    return "".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" font-family="system-ui, sans-serif" '
            f'font-size="13"><rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            '<text x="40" y="24" fill="#1f272d">challenger minus champion, bits per byte: below '
            "zero is better</text>",
            f'<rect x="{left}" y="50" width="{max(1.0, right - left):.2f}" height="{base - 50}" '
            f'fill="{color}" opacity="0.15"/>',
            bars,
            f'<line x1="40" y1="{base}" x2="{WIDTH - 40}" y2="{base}" stroke="#1f272d"/>',
            f'<line x1="{zero}" y1="44" x2="{zero}" y2="{base + 6}" stroke="#cf222e" '
            'stroke-dasharray="4 3"/>',
            f'<text x="{zero}" y="{base + 22}" text-anchor="middle" fill="#cf222e">0</text>',
            f'<text x="{(left + right) / 2:.1f}" y="{base + 44}" text-anchor="middle" '
            f'fill="#1f272d">{interval}</text></svg>',
        )
    )


def _open(height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" class="plot" '
        'font-family="system-ui, sans-serif" font-size="12">'
    )
