"""Plots as PNG, by matplotlib, without a screen: the loss of a run, lines and bars."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightlm.rendering.svg import Line, Points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def render_loss(
    path: Path, losses: Points, scores: Points, title: str, final: float | None
) -> None:
    """Write a run's losses, (seconds, nats per token), and scores, (seconds, bits per byte).

    `final` is the score of the whole held-out text, where it is known.
    """
    figure, left = _open_figure(9, 5)
    left.set_title(title, fontsize=11, loc="left")
    left.set_xlabel("seconds since the start of the run")
    left.set_ylabel("training loss (nats per token)", color="tab:blue")

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


def render_lines(path: Path, lines: Sequence[Line], x_name: str, y_name: str) -> None:
    """Write lines over common axes, as svg.render_lines shows them."""
    figure, axes = _open_figure(8, 4)
    axes.set_xlabel(x_name)
    axes.set_ylabel(y_name)
    for line in lines:
        if line.points:
            axes.plot(
                *zip(*line.points, strict=True),
                color=line.color,
                linestyle="--" if line.is_dashed else "-",
                marker="o" if line.has_marks else "",
                label=line.name,
            )

    axes.legend()
    figure.savefig(path)


def render_bars(path: Path, values: Mapping[str, float], x_name: str, highlighted: str) -> None:
    """Write a bar per value, the first on top, as svg.render_bars shows them."""
    figure, axes = _open_figure(8, 4)
    colors = ["tab:orange" if name == highlighted else "tab:gray" for name in values]
    bars = axes.barh(list(values), list(values.values()), color=colors)
    axes.bar_label(bars, fmt="%.3f", padding=4)
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.set_xlabel(x_name)
    figure.savefig(path)


def _open_figure(width: int, height: int) -> "tuple[Figure, Axes]":
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.25)
    return figure, axes


def smooth(values: Sequence[float]) -> list[float]:
    """Return the mean of each value and its neighbors, over about a thirtieth of them in all."""
    reach = len(values) // 60
    windows = (values[max(0, index - reach) : index + reach + 1] for index in range(len(values)))
    return [sum(window) / len(window) for window in windows]
