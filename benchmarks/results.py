"""What every benchmark writes: figures as JSON and a bar chart of goals reached, in a folder; and a
table of them all.

.venv/bin/python benchmarks/results.py [--out bench-results]      # the one table of what was measured last
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

BENCHMARKS = ("tokenization", "generation", "loader", "steps", "startup")

HEADINGS = ("what", "ours", "rival", "ratio", "machine's limit", "share", "goal", "met")

STARTED = time.perf_counter()


class Figure(NamedTuple):
    """One measured figure, beside a rival's and beside the machine's limit, and the goal that it is
    `judged_by`.
    """

    name: str
    ours: float
    unit: str
    goal: float | None = None
    judged_by: Literal["ratio", "share", "value"] = "ratio"
    rival: float | None = None
    rival_name: str = ""
    limit: float | None = None
    limit_name: str = ""
    is_lower_better: bool = False

    @property
    def ratio(self) -> float | None:
        """How many times better than the rival; None without one."""
        if not self.rival or not self.ours:
            return None
        return self.rival / self.ours if self.is_lower_better else self.ours / self.rival

    @property
    def share(self) -> float | None:
        """What of the machine's limit is reached; None where none was measured."""
        return self.ours / self.limit if self.limit else None

    @property
    def reached(self) -> float | None:
        """The part of the goal that is reached, 1 or more where it is met; None without a goal."""
        if self.goal is None:
            return None
        if self.judged_by == "value":
            return (
                self.goal / max(self.ours, 1e-9) if self.is_lower_better else self.ours / self.goal
            )
        return ((self.ratio if self.judged_by == "ratio" else self.share) or 0.0) / self.goal

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        goal = "" if self.goal is None else f"{self.goal:g}"
        if self.goal is not None and self.judged_by == "share":
            goal = f">= {self.goal:.0%}"
        elif self.goal is not None and self.judged_by == "ratio":
            goal = f">= {self.goal:g} x"
        elif self.goal is not None:
            goal = f"{'<=' if self.is_lower_better else '>='} {self.goal:g} {self.unit}".rstrip()

        return (
            self.name,
            f"{_short(self.ours)} {self.unit}".rstrip(),
            "" if self.rival is None else f"{_short(self.rival)} ({self.rival_name})",
            "" if self.ratio is None else f"{self.ratio:.2f} x",
            "" if self.limit is None else f"{_short(self.limit)} ({self.limit_name})",
            "" if self.share is None else f"{self.share:.0%}",
            goal,
            "" if self.reached is None else "yes" if self.reached >= 1 else "NO",
        )


def parse_folder(description: str, **options: dict[str, Any]) -> argparse.Namespace:
    """Return the command line: `--out FOLDER`, and `options` as add_argument takes them."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("bench-results"), help="folder for JSON and plot"
    )
    for name, option in options.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **option)
    return parser.parse_args()


def report(
    name: str, figures: list[Figure], out: Path, details: dict[str, Any] | None = None
) -> None:
    """Print the table of figures, and write NAME.json and NAME.png into `out`."""
    spent = os.times()
    cpu_seconds = spent.user + spent.system + spent.children_user + spent.children_system
    wall_seconds = time.perf_counter() - STARTED
    print(f"\n{name} ({wall_seconds:.0f} s, {cpu_seconds:.0f} CPU s)")
    print_table([figure.cells() for figure in figures])
    out.mkdir(parents=True, exist_ok=True)
    values = [
        figure._asdict() | {"ratio": figure.ratio, "share": figure.share} for figure in figures
    ]

    text = json.dumps(
        {
            "benchmark": name,
            "machine": platform.processor() or platform.machine(),
            "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
            "wall_seconds": round(wall_seconds, 1),
            "cpu_seconds": round(cpu_seconds, 1),
            "figures": values,
            "details": details or {},
        },
        indent=2,
    )

    (out / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    plot(name, figures, out / f"{name}.png")


def read_figures(path: Path) -> list[Figure]:
    """Return the figures that a benchmark wrote; none where it wrote no file."""
    if not path.exists():
        return []
    values = json.loads(path.read_text(encoding="utf-8"))["figures"]
    return [Figure(**{key: value[key] for key in Figure._fields}) for value in values]


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows under HEADINGS, columns as wide as they must be; a column without any entry is
    left out.
    """
    used = [i for i in range(len(HEADINGS)) if any(row[i] for row in rows)]
    table = [[row[i] for i in used] for row in (HEADINGS, *rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    print("\n".join([lines[0], "-" * len(lines[0]), *lines[1:]]))


def plot(name: str, figures: list[Figure], path: Path) -> None:
    """Draw the part of each goal that is reached."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    judged = [figure for figure in figures if figure.reached is not None]
    picture, axes = pyplot.subplots(figsize=(8, 1.1 + 0.5 * len(judged)), layout="constrained")
    values = [figure.reached or 0.0 for figure in judged]
    colors = ["#4c72b0" if value >= 1 else "#dd8452" for value in values]
    axes.barh(range(len(judged)), values, color=colors, height=0.55)
    axes.axvline(1.0, color="#c44e52", label="goal")
    labels = [f"{figure.name}\n{figure.cells()[1]}, goal {figure.cells()[6]}" for figure in judged]
    axes.set_yticks(range(len(judged)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, min(5.0, 1.1 * max([*values, 1.0])))
    axes.set_xlabel("part of the goal reached, 1 = met")
    axes.set_title(name)
    axes.legend(loc="lower right", fontsize=8)
    picture.savefig(path, dpi=110)
    pyplot.close(picture)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main() -> None:
    """Print the one table of all benchmarks."""
    out = parse_folder(__doc__ or "").out
    figures = [figure for name in BENCHMARKS for figure in read_figures(out / f"{name}.json")]
    if not figures:
        raise SystemExit(f"no figures in {out}; run `make bench` first")
    print()
    print_table([figure.cells() for figure in figures])
    judged = [figure.reached >= 1 for figure in figures if figure.reached is not None]
    print(f"\n{sum(judged)} of {len(judged)} goals met; JSON and plots in {out}")


if __name__ == "__main__":
    main()
