"""A picture of what machines would reach: bits per byte over the time, on a logarithmic axis."""

import html
import math
from collections.abc import Mapping, Sequence

WIDTH = 860
HEIGHT = 460
LEFT = 60
RIGHT = 190
TOP = 44
BOTTOM = 40
"""Size and margins of the picture, in its own units; names stand at the right."""

COLORS = ("#1c7ed6", "#2f9e44", "#e8590c", "#9c36b5", "#c92a2a", "#0b7285", "#846358", "#5f3dc4")

ROW = 15
"""Height of a name: names of lines that end close to each other move apart."""

Point = tuple[float, float, float, float]
"""Seconds, bits per byte, and the ends of its interval."""


def render_machines(title: str, lines: Mapping[str, Sequence[Point]]) -> str:
    """Return an SVG: a line per machine with its intervals as bands, named at its end."""
    points = [point for line in lines.values() for point in line]
    first = math.log(min(seconds for seconds, *_ in points))
    last = math.log(max(seconds for seconds, *_ in points))
    low = min(point[2] for point in points)
    high = max(point[3] for point in points)

    def place(seconds: float, bits: float) -> tuple[float, float]:
        across = (math.log(seconds) - first) / max(last - first, 1e-9)
        down = (high - bits) / max(high - low, 1e-9)
        return LEFT + (WIDTH - LEFT - RIGHT) * across, TOP + (HEIGHT - TOP - BOTTOM) * down

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="24" font-size="15" fill="#1f272d">{html.escape(title)}</text>',
    ]
    for step in range(6):
        bits = low + (high - low) * step / 5
        y = place(math.exp(first), bits)[1]
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dee2e6"/>'
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{bits:.2f}</text>'
        )

    for seconds in sorted({point[0] for point in points}):
        x = place(seconds, low)[0]
        parts.append(
            f'<text x="{x:.1f}" y="{HEIGHT - 14}" text-anchor="middle">{_name(seconds)}</text>'
        )

    ends = spread({name: place(*line[-1][:2])[1] for name, line in lines.items()})
    for index, (name, line) in enumerate(lines.items()):
        color = COLORS[index % len(COLORS)]
        upper = [place(seconds, top) for seconds, _, _, top in line]
        lower = [place(seconds, bottom) for seconds, _, bottom, _ in line]
        middle = [place(seconds, bits) for seconds, bits, _, _ in line]
        parts += [
            f'<polygon points="{_join([*upper, *reversed(lower)])}" fill="{color}" '
            'opacity="0.07"/>',
            f'<polyline points="{_join(middle)}" fill="none" stroke="{color}" stroke-width="2"/>',
            f'<text x="{WIDTH - RIGHT + 10}" y="{ends[name] + 4:.1f}" fill="{color}">'
            f"{html.escape(name)} {line[-1][1]:.3f}</text>",
        ]

    return "".join(parts) + "</svg>\n"


def spread(heights: Mapping[str, float]) -> dict[str, float]:
    """Return heights in the same order, at least a row apart."""
    moved: dict[str, float] = {}
    last = -math.inf
    for name, height in sorted(heights.items(), key=lambda entry: entry[1]):
        last = max(height, last + ROW)
        moved[name] = last
    return moved


def _join(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _name(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.0f} h"
