"""What every benchmark writes: figures as JSON and a bar chart of ratios, in a folder; and a table on the terminal."""

import argparse
import json
import platform
from pathlib import Path
from typing import Any, NamedTuple


class Figure(NamedTuple):
    """One measured figure beside its rival's or its limit, and the goal for their ratio."""

    name: str
    ours: float
    other: float
    unit: str
    other_name: str
    goal: float
    is_lower_better: bool = False

    @property
    def ratio(self) -> float:
        """How many times better than the other."""
        if self.is_lower_better:
            return self.other / self.ours if self.ours else float("inf")
        return self.ours / self.other if self.other else float("inf")


def parse_folder(description: str, **options: dict[str, Any]) -> argparse.Namespace:
    """Return the command line: `--out FOLDER`, and `options` as add_argument takes them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="folder for JSON and plot")
    for name, option in options.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **option)
    return parser.parse_args()


def report(name: str, figures: list[Figure], out: Path, details: dict[str, Any] | None = None) -> None:
    """Print the table of figures, and write NAME.json and NAME.png into `out`."""
    print(f"\n{name} on {platform.processor() or platform.machine()}")
    for figure in figures:
        verdict = "reached" if figure.ratio >= figure.goal else "NOT reached"
        print(
            f"  {figure.name:44} {figure.ours:10.3g} against {figure.other:10.3g} {figure.unit} ({figure.other_name}): "
            f"{figure.ratio:.2f} x, goal {figure.goal:g} {verdict}"
        )
    out.mkdir(parents=True, exist_ok=True)
    values = [figure._asdict() | {"ratio": figure.ratio} for figure in figures]
    text = json.dumps({"benchmark": name, "figures": values, "details": details or {}}, indent=2)
    (out / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    plot(name, figures, out / f"{name}.png")


def plot(name: str, figures: list[Figure], path: Path) -> None:
    """Draw each ratio as a bar beside its goal."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    picture, axes = pyplot.subplots(figsize=(8, 0.9 + 0.5 * len(figures)), layout="constrained")
    places = range(len(figures))
    axes.barh(places, [figure.ratio for figure in figures], color="#4c72b0", height=0.55)
    axes.scatter(
        [figure.goal for figure in figures], places, marker="|", s=300, color="#c44e52", label="goal", zorder=3
    )
    axes.set_yticks(places, [f"{figure.name}\nagainst {figure.other_name}" for figure in figures], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("ratio, higher is better")
    axes.set_title(name)
    axes.legend(loc="lower right", fontsize=8)
    picture.savefig(path, dpi=110)
    pyplot.close(picture)
