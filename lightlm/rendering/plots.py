"""The plots of a run: loss and bits per byte over its time, without a screen; and champion against
challenger.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightlm.evaluation.comparison import Comparison

Point = tuple[float, float]


def render_loss(
    path: Path, losses: Sequence[Point], scores: Sequence[Point], title: str, final: float | None
) -> None:
    """Write a PNG: (seconds, nats a token) as a line, (seconds, bits per byte) as dots on an axis
    of their own.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), dpi=110, layout="constrained")
    left = figure.subplots()
    left.set_title(title, fontsize=11, loc="left")
    left.set_xlabel("seconds since the start of the run")
    left.set_ylabel("training loss (nats a token)", color="tab:blue")
    left.grid(alpha=0.25)

    if losses:
        seconds, values = zip(*losses, strict=True)
        left.plot(seconds, values, color="tab:blue", linewidth=0.6, alpha=0.4)
        left.plot(seconds, smooth(values), color="tab:blue", linewidth=1.8)
        # The few highest losses, of the first steps, would flatten the rest.
        low = min(smooth(values))
        high = sorted(values)[math.ceil(0.98 * (len(values) - 1))]
        left.set_ylim(low - 0.05 * (high - low) - 1e-3, high + 1e-3)

    if scores:
        right = left.twinx()
        right.set_ylabel("held-out bits per byte", color="tab:orange")
        seconds, values = zip(*scores, strict=True)
        right.plot(seconds, values, color="tab:orange", marker="o", linewidth=1.2)
        if final is not None:
            right.axhline(final, color="tab:orange", linestyle=":", linewidth=1)
            right.annotate(
                f"{final:.3f}",
                (seconds[-1], final),
                xytext=(0, 6),
                textcoords="offset points",
                ha="right",
            )

    figure.savefig(path)


def render_report_curve(
    path: Path, scores: Sequence[Point], foreseen: Sequence[Point], final: float
) -> None:
    """Write a PNG: (fraction, bits per byte) held out, against what was foreseen."""
    axes, figure = _open_figure()
    axes.set_xlabel("fraction of the training time")
    axes.set_ylabel("held-out bits per byte")
    if foreseen:
        axes.plot(*zip(*foreseen, strict=True), color="tab:gray", linestyle="--", label="foreseen")
    axes.plot(
        *zip(*[*scores, (1.0, final)], strict=True), color="tab:orange", marker="o", label="reached"
    )
    axes.legend()
    figure.savefig(path)


def render_report_scores(path: Path, scores: Mapping[str, float]) -> None:
    """Write a PNG: a bar a score in bits per byte, the least on top."""
    axes, figure = _open_figure()
    names = list(scores)
    bars = axes.barh(
        names,
        list(scores.values()),
        color=["tab:orange" if n == "this model" else "tab:gray" for n in names],
    )

    axes.bar_label(bars, fmt="%.3f", padding=4)
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.set_xlabel("bits a held-out byte costs")
    figure.savefig(path)


def _open_figure() -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.25)
    return axes, figure


def smooth(values: Sequence[float]) -> list[float]:
    """Return the mean of each value and its neighbours, over about a thirtieth of them in all."""
    reach = len(values) // 60
    windows = (values[max(0, index - reach) : index + reach + 1] for index in range(len(values)))
    return [sum(window) / len(window) for window in windows]


WIDTH = 720
HEIGHT = 250
BASE = 190
"""Of the comparison's picture, in its own units; BASE is where its bars stand."""


def render_comparison(comparison: Comparison) -> str:
    """Return an SVG: how often each difference came out of the resamples, its interval, and zero.

    Written by hand: matplotlib takes a second to import, in a process that has better things to do.
    """
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
        f'y="{BASE - 130 * count / tallest:.1f}" '
        f'width="{width:.2f}" height="{130 * count / tallest:.1f}" fill="{color}"/>'
        for index, count in enumerate(comparison.histogram)
        if count
    )

    left = place(comparison.low)
    right = place(comparison.high)
    zero = place(0.0)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" '
        f'font-family="system-ui, sans-serif" font-size="13"><rect width="{WIDTH}" '
        f'height="{HEIGHT}" fill="#ffffff"/>'
        '<text x="40" y="24" fill="#1f272d">challenger minus champion, bits per byte: below zero '
        "is better</text>"
        f'<rect x="{left}" y="50" width="{max(1.0, right - left):.2f}" height="{BASE - 50}" '
        f'fill="{color}" '
        f'opacity="0.15"/>'
        f'{bars}<line x1="40" y1="{BASE}" x2="{WIDTH - 40}" y2="{BASE}" stroke="#1f272d"/>'
        f'<line x1="{zero}" y1="44" x2="{zero}" y2="{BASE + 6}" stroke="#cf222e" '
        'stroke-dasharray="4 3"/>'
        f'<text x="{zero}" y="{BASE + 22}" text-anchor="middle" fill="#cf222e">0</text>'
        f'<text x="{(left + right) / 2:.1f}" y="{BASE + 44}" text-anchor="middle" fill="#1f272d">'
        f"{comparison.difference:+.4f} ({comparison.low:+.4f} to "
        f"{comparison.high:+.4f})</text></svg>"
    )
