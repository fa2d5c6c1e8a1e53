"""The plot of a run: loss and held-out bits per byte over the budget. matplotlib, without a screen."""

import math
from collections.abc import Sequence
from pathlib import Path

Point = tuple[float, float]


def draw_loss(path: Path, losses: Sequence[Point], scores: Sequence[Point], title: str, final: float | None) -> None:
    """Write a PNG: (seconds, nats a token) as a line, (seconds, bits per byte) as dots on an axis of their own."""
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
        low, high = min(smooth(values)), sorted(values)[math.ceil(0.98 * (len(values) - 1))]
        left.set_ylim(low - 0.05 * (high - low) - 1e-3, high + 1e-3)
    if scores:
        right = left.twinx()
        right.set_ylabel("held-out bits per byte", color="tab:orange")
        seconds, values = zip(*scores, strict=True)
        right.plot(seconds, values, color="tab:orange", marker="o", linewidth=1.2)
        if final is not None:
            right.axhline(final, color="tab:orange", linestyle=":", linewidth=1)
            right.annotate(f"{final:.3f}", (seconds[-1], final), xytext=(0, 6), textcoords="offset points", ha="right")
    figure.savefig(path)


def smooth(values: Sequence[float]) -> list[float]:
    """Return the mean of each value and its neighbours, over about a thirtieth of them in all."""
    reach = len(values) // 60
    windows = (values[max(0, index - reach) : index + reach + 1] for index in range(len(values)))
    return [sum(window) / len(window) for window in windows]
